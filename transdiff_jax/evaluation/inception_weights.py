"""The Inception network's weights on disk, and where to get them."""

from pathlib import Path
from typing import NamedTuple

from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.inception import param_shapes
from transdiff_jax.frozen_weights import read_note, restore_frozen, save_frozen

SOURCE = "source.json"
# The published files end their names with the first digits of their digest.
DIGEST_PREFIX = "6726825d"
PUBLISHED_FILES = (
    f"weights-inception-2015-12-05-{DIGEST_PREFIX}.pth (of torch-fidelity's release v0.2.0)",
    f"pt_inception-2015-12-05-{DIGEST_PREFIX}.pth (of pytorch-fid's release fid_weights)",
)


class InceptionWeights(NamedTuple):
    """Parameters of the network, and the file that they were converted from."""

    params: dict
    file: str
    sha256: str  # of that file


def save_inception(folder: Path, weights: InceptionWeights) -> None:
    """Writes the network into an empty or new folder.

    Raises:
        UserError: the folder holds something, or cannot be written.
    """
    save_frozen(folder, weights.params, SOURCE, {"file": weights.file, "sha256": weights.sha256})


def load_inception(folder: Path) -> InceptionWeights:
    """The network of a folder.

    Args:
        folder: written by `save_inception`, that is by `cli.convert --kind=inception`.

    Raises:
        UserError: there is no such folder (the line says which file to get, and what to do with it), or it is not as
            it was written.
    """
    convert = "python -m transdiff_jax.cli.convert --kind=inception"
    if folder.is_file():
        raise UserError(
            f"{folder} is a file, not a folder of converted weights; run: {convert} --checkpoint={folder} "
            f"--out={folder.with_suffix('')}"
        )
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder with the Inception weights; get {' or '.join(PUBLISHED_FILES)}, SHA-256 "
            f"{DIGEST_PREFIX}..., and run: {convert} --checkpoint=FILE.pth --out={folder}"
        )
    source = read_note(folder, SOURCE, "Inception")
    return InceptionWeights(restore_frozen(folder, param_shapes()), source["file"], source["sha256"])
