"""The weights of the Inception network on disk, and where to get them."""

from pathlib import Path
from typing import NamedTuple

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.inception.network import param_shapes
from transdiff_jax.storage.checksums import MANIFEST
from transdiff_jax.storage.frozen_weights import FrozenParams, read_note, restore_frozen, save_frozen

SOURCE = "source.json"
PUBLISHED_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
# pytorch-fid's pt_inception-2015-12-05-6726825d.pth is the same file.
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_CONVERT = "transdiff convert --kind=inception"


class InceptionWeights(NamedTuple):
    """Parameters of the network, and the file that they were converted from."""

    params: FrozenParams
    file: str
    sha256: str  # of that file


def save_inception(folder: Path, weights: InceptionWeights) -> None:
    """Writes the network into an empty or new folder.

    Raises:
        UserError: the folder is not empty, or cannot be written.
    """
    save_frozen(folder, weights.params, SOURCE, {"file": weights.file, "sha256": weights.sha256})


def load_inception(folder: Path) -> InceptionWeights:
    """Reads the network from a folder.

    Args:
        folder: written by `save_inception`, that is by `transdiff convert --kind=inception`.

    Raises:
        UserError: there are no converted weights (the line says which file to get, its digest, and how to convert it),
            they have changed since they were written, or they are those of another network.
    """
    if folder.is_file():
        raise UserError(
            f"{folder} is a file, not a folder of converted weights; run: {_CONVERT} --checkpoint={folder} "
            f"--out={folder.with_suffix('')}"
        )
    if not (folder / MANIFEST).is_file():
        raise UserError(_how_to_convert(folder))
    source = read_note(folder, SOURCE, "Inception")
    file, digest = source.get("file"), source.get("sha256")
    if not isinstance(file, str) or not isinstance(digest, str):
        raise UserError(f"{folder / SOURCE} does not name the file that was converted: run {_CONVERT} again")
    return InceptionWeights(restore_frozen(folder, param_shapes()), file, digest)


def _how_to_convert(folder: Path) -> str:
    """What to do about a folder that is missing or holds no complete conversion."""
    problem = "no converted" if folder.is_dir() else "no such folder with the"
    files = [*sorted(folder.glob("*.pth")), "FILE.pth"]
    # A conversion writes only into a new or an empty folder.
    out = folder / "converted" if any(folder.glob("*")) else folder
    return (
        f"{folder}: {problem} Inception weights; get {PUBLISHED_URL} (SHA-256 {PUBLISHED_SHA256}), run: {_CONVERT} "
        f"--checkpoint={files[0]} --out={out} and name {out} here"
    )
