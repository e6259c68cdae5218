"""The kinds of files that commands read: where they are, the command that reads them, and when its result is right."""

import dataclasses
from collections.abc import Callable

from tests.withstand.bases import ARCHIVES, CACHE, SAMPLE
from tests.withstand.hub_cache import SNAPSHOT, publish_again
from tests.withstand.results import ARCHIVED, CACHED, IMAGES, SET, STEP, nothing, older_step, scores, tensors, trained

SCORE = ("evaluate", "--inception=inception", "--certificate=home/scores.json", "--inception_batch_size=8")
EXPORT = ("convert", "--checkpoint=run", "--kind=transdiff", "--to-torch", "--out=back.pth")
MORE = ("train", "--config=config.py", "--workdir=run", "--config.train.steps=6")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of file. A command may change only what is below `writes`."""

    base: str
    target: str  # pattern of the files; one of them is damaged
    command: tuple[str, ...]
    writes: tuple[str, ...] = ()
    result: Callable = nothing
    other: Callable | None = None  # makes another state of the base, whose result is right too
    json: bool = False  # also damage it as JSON
    small: bool = False  # a small network in place of Inception
    after: Callable = lambda root, path: None  # what makes the damage fit other files
    codes: tuple[int, ...] = (0, 2)


def _kinds(base, command, targets, **settings):
    return {
        name: Kind(base, target, command, json=name.endswith("json"), **settings) for name, target in targets.items()
    }


_STEP_FILES = {
    "manifest.json": f"{STEP}/manifest.json",
    "average": f"{STEP}/ema_0/**/d/*",
    "params": f"{STEP}/params/**/d/*",
    "optimizer": f"{STEP}/optimizer/**/d/*",
    "ocdbt": f"{STEP}/ema_0/manifest.ocdbt",
    "tree.json": f"{STEP}/ema_0/_METADATA",
    "record.json": f"{STEP}/run/metadata",
    "step_metadata.json": f"{STEP}/_CHECKPOINT_METADATA",
    "commit": f"{STEP}/commit_success.txt",
}


def _of(prefix, kinds):
    return {f"{prefix}-{name}": kind for name, kind in kinds.items()}


KINDS = {
    # Weights are written out again: that reads all of a step, and compiles nothing.
    **_of("read", _kinds("run", EXPORT, _STEP_FILES, writes=("back.pth",), result=tensors, other=older_step)),
    "sample-manifest.json": Kind(
        "run", f"{STEP}/manifest.json", SAMPLE, writes=("out",), result=IMAGES, other=older_step, json=True
    ),
    **_of(
        "resume",
        _kinds(
            "run",
            MORE,
            _STEP_FILES | {"lock": "run/.lock", "metrics.json": "run/metrics.jsonl", "events": "run/events.*"},
            writes=("run",),
            result=trained,
        ),
    ),
    "finetune-manifest.json": Kind(
        "run",
        f"{STEP}/manifest.json",
        ("train", "--config=config.py", "--workdir=new", "--config.train.steps=1", "--config.train.init_from=run"),
        writes=("new",),
        json=True,
    ),
    **_of(
        "set",
        _kinds(
            "samples",
            SAMPLE,
            {
                **{"record.json": "out/samples.json", "sums": "out/SHA256SUMS", "image": "out/images/*.png"},
                **{"npz": "out/samples.npz", "grid": "out/grid.png"},
            },
            writes=("out",),
            result=SET,
        ),
    ),
    **_of(
        "info",
        _kinds(
            "scored",
            ("info", "--workdir=run"),
            {
                **{
                    name: _STEP_FILES[name]
                    for name in ("manifest.json", "average", "record.json", "step_metadata.json")
                },
                **{"metrics.json": "run/metrics.jsonl", "scores.json": "run/evaluation/4.json"},
            },
        ),
    ),
    **_of(
        "archived",
        _kinds(
            "archives",
            ARCHIVES,
            {
                **{"record.json": "out/samples.json", "sums": "out/SHA256SUMS", "archive": "out/images/*.zip"},
                "npz": "out/samples.npz",
            },
            writes=("out",),
            result=ARCHIVED,
        ),
    ),
    # The digests of a repository are those of its files, whoever wrote them.
    **_of(
        "hub",
        _kinds(
            "published",
            ("info", "--workdir=hf://me/photos"),
            {
                **{"config.json": f"{SNAPSHOT}/config.json", "model": f"{SNAPSHOT}/model.safetensors"},
                **{"sizes.json": f"{SNAPSHOT}/tokenizer.json", "tokenizer": f"{SNAPSHOT}/tokenizer.safetensors"},
            },
            writes=("home",),
            after=publish_again,
        ),
    ),
    "hub-copy": Kind(
        "published", f"{SNAPSHOT}/model.safetensors", ("info", "--workdir=hf://me/photos"), writes=("home",)
    ),
    **_of(
        "unfinished",
        _kinds(
            "unfinished",
            SAMPLE,
            {"record.json": "out/samples.json", "journal": "out/progress/*", "image": "out/images/*.png"},
            writes=("out",),
            result=SET,
        ),
    ),
    **_of(
        "score",
        _kinds(
            "scores",
            (*SCORE, "--samples=out", "--reference=real.npz"),
            {
                **{"record.json": "out/samples.json", "sums": "out/SHA256SUMS", "image": "out/images/*.png"},
                **{"reference_images": "real.npz", "inception_manifest.json": "inception/manifest.json"},
                **{"inception_source.json": "inception/source.json", "inception_arrays": "inception/weights/**/d/*"},
                "inception_tree.json": "inception/weights/_METADATA",
            },
            writes=("home",),
            result=scores,
            small=True,
        ),
    ),
    **{
        f"score-{name}": Kind(
            "scores",
            target,
            (*SCORE, f"--samples={samples}", f"--reference={reference}"),
            writes=("home",),
            result=result,
            small=True,
        )
        for name, target, samples, reference, result in (
            ("images_npz", "real.npz", "real.npz", "statistics.npz", scores),
            ("packed_npz", "packed.npz", "packed.npz", "statistics.npz", scores),
            ("statistics", "statistics.npz", "real.npz", "statistics.npz", scores),
            ("torch_statistics", "statistics.pt", "real.npz", "statistics.pt", nothing),
            ("picture", "pictures/*.png", "pictures", "statistics.npz", nothing),
        )
    },
    "score-archive": Kind(
        "scored_archives",
        "out/images/*.zip",
        (*SCORE, "--samples=out", "--reference=statistics.npz"),
        writes=("home",),
        result=scores,
        small=True,
    ),
    **_of(
        "check",
        _kinds(
            "latents",
            ("cache_latents", "--check", "--out=latents"),
            {
                **{"manifest.json": "latents/manifest.json", "records": "latents/*.array_record"},
                **{"labels": "latents/labels.npy", "ids.json": "latents/ids.json.gz"},
            },
            result=CACHED,
        ),
    ),
    **_of(
        "cache",
        _kinds(
            "half",
            CACHE,
            {
                **{"settings.json": "latents/progress/settings.json", "note.json": "latents/progress/00000.json"},
                **{"records": "latents/*.array_record", "weights_manifest.json": "weights/manifest.json"},
                **{"weights_arrays": "weights/weights/**/d/*", "weights_sizes.json": "weights/sizes.json"},
            },
            writes=("latents",),
            result=CACHED,
        ),
    ),
    "cache-photo": Kind("photos", "photos/*/*", CACHE, writes=("latents",)),
    "groups-latents_manifest.json": Kind(
        "latents",
        "latents/manifest.json",
        ("cache_latents", "--groups=random", "--group_size=2", "--out=latents"),
        writes=("latents/groups_random.jsonl",),
        json=True,
    ),
    **_of(
        "train",
        _kinds(
            "groups",
            ("train", "--config=groups.py", "--workdir=new"),
            {
                **{"index.json": "latents/groups_random.jsonl", "latents_manifest.json": "latents/manifest.json"},
                **{"latents_records": "latents/*.array_record", "latents_labels": "latents/labels.npy"},
                **{"latents_ids.json": "latents/ids.json.gz", "config": "groups.py"},
            },
            writes=("new", "__pycache__"),
        ),
    ),
    **_of(
        "digits",
        _kinds(
            "data",
            ("train", "--config=config.py", "--workdir=new", "--config.train.steps=1"),
            {
                "info.json": "data/digits/1.0.0/dataset_info.json",
                "features.json": "data/digits/1.0.0/features.json",
                "records": "data/digits/1.0.0/digits-train*",
            },
            writes=("new", "data"),
        ),
    ),
    "convert-pth": Kind(
        "release",
        "one_step_256_a.pth",
        ("convert", "--checkpoint=one_step_256_a.pth", "--kind=transdiff", "--heads=2", "--out=converted"),
        writes=("converted",),
    ),
    **_of(
        "export",
        _kinds(
            "converted",
            ("convert", "--checkpoint=converted", "--kind=transdiff", "--to-torch", "--out=back.pth"),
            {
                "manifest.json": "converted/checkpoints/0/manifest.json",
                "record.json": "converted/checkpoints/0/run/metadata",
                "unused": "converted/unused_tensors.npz",
            },
            writes=("back.pth",),
        ),
    ),
    "verify-golden": Kind("release", "kl16_a.npz", ("verify", "kl16_a.npz"), codes=(0, 1, 2)),
    **_of(
        "report",
        _kinds(
            "report",
            ("digits_report", "--folder=report"),
            {
                "metrics.json": "report/mrar/metrics.jsonl",
                "samples.json": "report/samples/mrar/samples.json",
                "earlier_image": "report/samples/mrar/references/*.png",
                "record.json": "report/one_step/checkpoints/2/run/metadata",
            },
            writes=("report", "home", "data"),
        ),
    ),
}
