"""Command lines of `train`, as in lines_sample.py, and one for each absurd value of each field of a configuration."""

import dataclasses
import typing

from transdiff_jax.config import Config

HUGE = "9" * 30
_TRAIN = "train --config=config.py --workdir=out2"

TRAIN = [
    "train => --workdir",
    "train --workdir=out2 => --config",
    "train --config=config.py => --workdir",
    *(f"train --config={path} --workdir=out2" for path in ("''", "nowhere.py", "run", "loop", "/dev/null", "real.npz")),
    *(f"train --config={path} --workdir=out2" for path in ("out/samples.json", "'a b.py'", "x" * 300, "config")),
    *(f"train --config={name}.py --workdir=out2" for name in ("syntax", "raises", "number", "nothing")),
    *(
        f"train --config={name}.py --workdir=out2"
        for name in ("unknown_field", "wrong_type", "deep", "exits", "binary")
    ),
    *(
        f"train --config=config.py --workdir={path}"
        for path in ("''", "config.py", "/dev/null", "loop", "loop/a", "link/a")
    ),
    *(f"train --config=config.py --workdir={path}" for path in ("pipe", "x" * 300, "real.npz/a")),
    *(
        f"{_TRAIN} --config.{field}"
        for field in ("x=1", "train=1", "train.x=1", "train.steps.x=1", "=1", ".=1", "train.=1")
    ),
    *(f"{_TRAIN} --config.train.{field}" for field in ("steps", "ema_rates=0.9", "'ema_rates=(0.9,'", "ema_rates=()")),
    *(f"{_TRAIN} --config.train.ema_rates={value}" for value in ("'(1.0,)'", "'(-1.0,)'", "'(0.9,0.9)'", "'(\"a\",)'")),
    *(f"{_TRAIN} --config.data.source={value}" for value in ("''", "x", "tfds:", "folder:", "latents:", "digits2")),
    *(
        f"{_TRAIN} --config.data.source={value}"
        for value in ("tfds:../../x", "tfds:nothing", "tfds:a/b/c", "tfds:'a b'")
    ),
    *(
        f"{_TRAIN} --config.data.source=tfds:{value}"
        for value in ("/etc", "mnist", "'{}'", "digits:9.9.9", "'é'", "''")
    ),
    *(
        f"{_TRAIN} --config.data.source=folder:{value}"
        for value in ("nowhere", "config.py", "run", "loop", "home", "pipe")
    ),
    *(f"{_TRAIN} --config.data.source=latents:{value}" for value in ("nowhere", "config.py", "latents", "loop")),
    *(f"{_TRAIN} --config.data.directory={value}" for value in ("''", "config.py", "/dev/null", "loop", "link/a/b")),
    *(
        f"{_TRAIN} --config.data.split={value}"
        for value in ("''", "nothing", "'train[:50%]'", "'train[:0]'", "'train+test'")
    ),
    *(f"{_TRAIN} --config.data.groups={value}" for value in ("''", "index:", "index:nowhere", "x", "index:run")),
    *(
        f"{_TRAIN} --config.train.init_from={value}"
        for value in ("nowhere", "config.py", "data", "loop", "' '", "home")
    ),
    *(f"{_TRAIN} --config.train.init_from=converted{value}" for value in ("", "/x")),
    *(
        f"{_TRAIN} --config.tokenizer.kind=kl16 --config.tokenizer.weights={value}"
        for value in ("''", "nowhere", "run")
    ),
    f"{_TRAIN} --config.eval.every=1 => config.eval.",
    *(
        f"{_TRAIN} --config.eval.every=1 --config.eval.reference={value} --config.eval.inception=inception"
        for value in ("nowhere", "config.py", "run", "home")
    ),
    *(
        f"{_TRAIN} --config.eval.every=1 --config.eval.reference=real.npz --config.eval.inception={value}"
        for value in ("nowhere", "config.py", "run", "home")
    ),
    "train --config=config.py --workdir=run --config.model.width=32 => was trained with config.model.width",
    "train --config=config.py --workdir=run --config.train.only=decoder",
    "ok train --config=config.py --workdir=run",
    "ok train --config=config.py --workdir=run --config.train.log_every=1000000",
    *(f"{_TRAIN} --config.model.width={value}" for value in ("1000000000", "1000000000000", "17", "0")),
    *(f"{_TRAIN} --config.model.heads={value}" for value in ("3", "0", "16000000000", "-2")),
    *(f"{_TRAIN} --config.train.batch_size={value}" for value in ("100000000000", "1000000000", "3000000", "0", "-8")),
    *(
        f"{_TRAIN} --config.train.{field}"
        for field in ("steps=100000000000000000000000", "accumulation=3", "keep_last=0")
    ),
    *(f"{_TRAIN} --config.model.{name}=100000000" for name in ("encoder_blocks", "decoder_blocks", "class_tokens")),
    *(f"{_TRAIN} --config.model.{name}=100000000" for name in ("num_classes", "num_images", "latent_size")),
    f"{_TRAIN} --config.loss.pairs_per_latent=100000000",
    f"{_TRAIN} --config.data.image_size=8000000 --config.model.latent_size=4000000",
    f"{_TRAIN} --config.data.workers=100000",
    f"{_TRAIN} --config.data.read_threads=1000000",
    *(
        f"{_TRAIN} --config.mesh.{field}"
        for field in ("data=0", "data=2", "fsdp=-1", "tensor=3", "dcn_data=0", "data=-2")
    ),
    *(f"{_TRAIN} {value}" for value in ("extra", "--unknown=1", "--workdir", "--config.seed", "--=", "'--config.é=1'")),
    "ok train --help",
]

# For each field, by its type: values that are refused, or that are right.
_ABSURD = {
    int: ("''", "a", "1.5", "-1", "nan", "True", "None", HUGE, "'[1]'", "-9223372036854775809", "0x10"),
    float: ("''", "a", "nan", "inf", "-inf", "1e400", "-1.0", "True", "None", "'(1,)'", "1e-400"),
    str: ("1", "None", "'a\0b'", "'a\nb'"),
    bool: ("''", "2", "maybe", "None", "1.0"),
    tuple: (
        "''",
        "1",
        "a",
        "'()'",
        "'(nan,)'",
        "'(1e400,)'",
        "'[1,'",
        "'(\"a\",)'",
        "'((1,),)'",
        f"'({HUGE},)'",
        "None",
    ),
    None: ("''", "unknown", "1", "None"),
}


def field_lines():
    """`train` with an absurd value for each field."""
    for section in dataclasses.fields(Config):
        if not dataclasses.is_dataclass(section.type):
            yield from _of_field(section.name, section.type)
            continue
        hints = typing.get_type_hints(section.type)
        for name, hint in hints.items():
            yield from _of_field(f"{section.name}.{name}", hint)


def _of_field(path, hint):
    kind = typing.get_origin(hint) or hint
    for value in _ABSURD[kind if kind in _ABSURD else None]:
        yield f"any train --config=config.py --workdir=out2 --config.train.steps=1 --config.{path}={value}"


LINES = [*TRAIN]
