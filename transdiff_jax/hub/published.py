"""The models that the authors have published, by short names. Nobody has downloaded them where this was written."""

from typing import NamedTuple

from transdiff_jax.model.variants import Kind
from transdiff_jax.storage.hub_files import HubName

REPO = "zhendch/Transdiff"
TOKENIZER_FILE = "vae/checkpoint-last.pth"  # of the KL-16 that all of them share


class PublishedModel(NamedTuple):
    """A file of the authors. Its bytes and its digest are not known here; the hub names them when it is downloaded."""

    size: str  # as in `transdiff_jax.model.variants`
    kind: Kind
    folder: str

    @property
    def source(self) -> HubName:
        """Where the file is."""
        return HubName(REPO, path=f"{self.folder}/checkpoint-last.pth")


PUBLISHED: dict[str, PublishedModel] = {
    "transdiff-b": PublishedModel("b", "one_step_256", "transdiff_b"),
    "transdiff-l": PublishedModel("l", "one_step_256", "transdiff_l"),
    "transdiff-h": PublishedModel("h", "one_step_256", "transdiff_h"),
    "transdiff-b-mrar": PublishedModel("b", "mrar_256", "transdiff_b_mrar"),
    "transdiff-l-mrar": PublishedModel("l", "mrar_256", "transdiff_l_mrar"),
    "transdiff-h-mrar": PublishedModel("h", "mrar_256", "transdiff_h_mrar"),
    "transdiff-l-512": PublishedModel("l", "one_step_512", "transdiff_l_512"),
}
