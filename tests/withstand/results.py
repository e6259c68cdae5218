"""What the results of commands are, to compare those of damaged and of intact files."""

import hashlib
import json
import shutil
import zipfile

STEP = "run/checkpoints/4"


def nothing(root):
    """Any result of code 0 is accepted: the file may say something else, and still be valid."""
    return


def files(*patterns):
    """The digest of all files that match, links followed."""

    def result(root):
        found = sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})
        digest = hashlib.sha256()
        for path in found:
            digest.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        return len(found), digest.hexdigest()

    return result


def scores(root):
    certificate = json.loads((root / "home" / "scores.json").read_text())
    return json.dumps([certificate["scores"], certificate["num_samples"], certificate["samples"]["pixels_sha256"]])


def tensors(root):
    """What a file of PyTorch holds; its own name is in the names of its members."""
    with zipfile.ZipFile(root / "back.pth") as archive:
        return [(entry.filename.partition("/")[2], entry.CRC) for entry in archive.infolist()]


def trained(root):
    return sorted(path.name for path in (root / "run" / "checkpoints").iterdir() if path.name == "6")


def older_step(root):
    shutil.rmtree(root / STEP)


IMAGES = files("out/images/*.png")
ARCHIVED = files("out/images/*.zip", "out/SHA256SUMS", "out/samples.npz")
SET = files("out/images/*.png", "out/SHA256SUMS", "out/samples.npz")
CACHED = files("latents/*.array_record", "latents/labels.npy", "latents/ids.json.gz", "latents/manifest.json")
