"""The format of a folder of cached latents: its files, and the manifest that says what they hold and come from.

    latents-00007-of-00032.array_record   records: the moments of both flips, [2, h, w, 2c], raw little-endian floats
    labels.npy                            class of each record, int32 [records]
    ids.json.gz                           id of each record in the source, a list of strings
    manifest.json                         settings, sizes, and the SHA-256 of all files, its own content included

Moments are those of the tokenizer, unscaled: means, then log-variances (clamped to the range that the posterior
allows); flip 0 is the image, flip 1 its mirror image. Records are in the source's order, without the unreadable ones.
Each record is a chunk of its own and is not compressed, so reading one costs a copy and a checksum.
"""

import dataclasses
import gzip
import hashlib
import io
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import MANIFEST, intact_files
from transdiff_jax.storage.files import Json, write_bytes, write_json
from transdiff_jax.storage.json_files import read_json_object
from transdiff_jax.storage.paths import sizes_of

FORMAT = 1
LABELS, IDS = "labels.npy", "ids.json.gz"
WRITER_OPTIONS = "group_size:1,uncompressed"
DIGEST = "sha256"  # of the rest of a sealed file
MOST_BYTES = 2**28  # of a sealed file; the manifest names each unreadable record


@dataclasses.dataclass(frozen=True)
class LatentSettings:
    """The settings that decide the content of a folder."""

    source: str  # config.data.source
    split: str
    source_records: int
    crop: str
    image_size: int
    tokenizer_sha256: str  # of the manifest in the folder of the weights
    tokenizer_dtype: str  # in which the encoder computed
    dtype: str  # of the records: float16 or bfloat16
    shape: tuple[int, ...]  # of a record: (2, h, w, 2c)
    class_names: tuple[str, ...]
    shard_records: int  # records of the source in each file; the last file has the rest
    format: int = FORMAT

    @property
    def num_shards(self) -> int:
        """The number of files of records."""
        return -(-self.source_records // self.shard_records)

    @property
    def record_dtype(self) -> np.dtype:
        """NumPy's dtype of the records."""
        return jnp.dtype(self.dtype)

    def source_range(self, shard: int) -> range:
        """The records of the source that go into a file."""
        first = shard * self.shard_records
        return range(first, min(first + self.shard_records, self.source_records))


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records, as it was written."""

    records: int
    bytes: int
    sha256: str
    skipped: tuple[str, ...]  # ids of the unreadable records of its range


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of manifest.json."""

    settings: LatentSettings
    shards: tuple[Shard, ...]
    labels_sha256: str
    ids_sha256: str

    @property
    def records(self) -> int:
        """The number of records in all files."""
        return sum(shard.records for shard in self.shards)

    @property
    def skipped(self) -> list[str]:
        """Ids of the unreadable records, in order."""
        return [name for shard in self.shards for name in shard.skipped]


def shard_name(shard: int, num_shards: int) -> str:
    """The name of a file of records."""
    return f"latents-{shard:05d}-of-{num_shards:05d}.array_record"


def write_sealed(path: Path, value: Json) -> None:
    """Atomically writes JSON that holds its own digest."""
    write_json(path, {DIGEST: _digest(value), **value})


def read_sealed(path: Path) -> Json:
    """Reads what `write_sealed` wrote.

    Raises:
        ValueError: the file has changed since it was written.
        OSError: the file cannot be read.
    """
    value = read_json_object(path, MOST_BYTES)
    if value.pop(DIGEST, None) != _digest(value):
        raise ValueError("its content does not match its own digest")
    return value


def _digest(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def settings_from(value: Json) -> LatentSettings:
    """Settings from JSON."""
    fields: Json = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
    return LatentSettings(**fields)


def write_manifest(
    folder: Path, settings: LatentSettings, shards: list[Shard], labels: list[int], ids: list[str]
) -> None:
    """Writes labels and ids, then the manifest, which makes the folder complete."""
    array = io.BytesIO()
    np.save(array, np.array(labels, np.int32))
    digests = {}
    # Without the time of writing, so that the same ids give the same bytes.
    for name, data in ((LABELS, array.getvalue()), (IDS, gzip.compress(json.dumps(ids).encode(), mtime=0))):
        write_bytes(folder / name, data)
        digests[name] = hashlib.sha256(data).hexdigest()
    manifest = Manifest(settings, tuple(shards), digests[LABELS], digests[IDS])
    counts = {"records": manifest.records, "skipped": len(manifest.skipped)}
    write_sealed(folder / MANIFEST, counts | dataclasses.asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete folder.

    Raises:
        UserError: there is none, it has changed since it was written, or it is of another version of this code.
    """
    path = folder / MANIFEST
    try:
        value = read_sealed(path)
    except OSError as error:
        raise UserError(
            f"{folder} holds no complete set of cached latents ({path.name}: {error.strerror}): make one with "
            f"transdiff cache_latents --out={folder}"
        ) from None
    except ValueError as error:
        raise damaged(path, str(error)) from None
    version = value.get("settings", {}).get("format")
    if version != FORMAT:
        raise UserError(f"{path} is of format {version}, but this version reads format {FORMAT}: make the folder anew")
    shards = tuple(Shard(**shard | {"skipped": tuple(shard["skipped"])}) for shard in value["shards"])
    return Manifest(settings_from(value["settings"]), shards, value["labels_sha256"], value["ids_sha256"])


def damaged(path: Path, reason: str) -> UserError:
    """The error for a file that has changed since it was written."""
    remedy = (
        f"run transdiff cache_latents --out={path.parent} again with the same settings, which remakes it"
        if path.suffix == ".array_record"
        else f"delete {path.parent} and make it again with transdiff cache_latents"
    )
    return UserError(f"{path} is damaged ({reason}): {remedy}")


def read_digested(path: Path, digest: str) -> bytes:
    """Reads a small file whose SHA-256 is known.

    Raises:
        UserError: it is missing, or has changed since it was written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, str(error.strerror)) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise damaged(path, "its SHA-256 is not the manifest's")
    return data


def read_labels(folder: Path, manifest: Manifest) -> np.ndarray:
    """Class of every record, int32 [records]; raises like `read_digested`."""
    return np.load(io.BytesIO(read_digested(folder / LABELS, manifest.labels_sha256)))


def read_ids(folder: Path, manifest: Manifest) -> list[str]:
    """Id of every record in the source; raises like `read_digested`."""
    return json.loads(gzip.decompress(read_digested(folder / IDS, manifest.ids_sha256)))


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raises a UserError if a file of records is missing or has another size; reads none of them."""
    names = [shard_name(index, len(manifest.shards)) for index in range(len(manifest.shards))]
    sizes = sizes_of(folder, names)
    for name, shard in zip(names, manifest.shards, strict=True):
        size = sizes.get(name)
        if size != shard.bytes:
            raise damaged(folder / name, "missing" if size is None else f"{size} bytes instead of {shard.bytes}")


def intact(folder: Path, digests: dict[int, str], num_shards: int) -> set[int]:
    """The files of records that match their digests; reads all of them."""
    names = {shard_name(shard, num_shards): shard for shard in digests}
    return {names[name] for name in intact_files(folder, {name: {digests[shard]} for name, shard in names.items()})}


def check_all(folder: Path) -> Manifest:
    """Reads every byte of a folder and returns its manifest.

    Raises:
        UserError: a file has changed since it was written; the message names the first such file.
    """
    manifest = read_manifest(folder)
    read_labels(folder, manifest)
    read_ids(folder, manifest)
    check_sizes(folder, manifest)
    digests = {index: shard.sha256 for index, shard in enumerate(manifest.shards)}
    bad = sorted(digests.keys() - intact(folder, digests, len(digests)))
    if bad:
        path = folder / shard_name(bad[0], len(digests))
        more = f", as in {len(bad) - 1} more file(s)" if len(bad) > 1 else ""
        raise damaged(path, f"its SHA-256 is not the manifest's{more}")
    return manifest
