"""Converts a checkpoint of the release to one of ours, or back.

transdiff convert --checkpoint=checkpoint-last.pth --kind=transdiff --out=DIR [--tokenizer=KL16_DIR]
transdiff convert --checkpoint=hf://OWNER/NAME/FILE.pth --kind=transdiff --out=DIR
transdiff convert --checkpoint=kl16.ckpt --kind=kl16 --out=KL16_DIR
transdiff convert --checkpoint=weights-inception-2015-12-05-6726825d.pth --kind=inception --out=DIR
transdiff convert --checkpoint=DIR --kind=transdiff --out=FILE.pth --to-torch

Lists every tensor of the release with its place in ours, or with the reason why it has none.
"""

from pathlib import Path

from absl import flags, logging

from transdiff_jax.cli import app
from transdiff_jax.cli.number_flags import define_integer
from transdiff_jax.cli.run_folders import run_folder
from transdiff_jax.config import ranges
from transdiff_jax.convert import conversion
from transdiff_jax.convert.table import describe
from transdiff_jax.errors import UserError
from transdiff_jax.storage.hub_files import SCHEME, fetch, parse_name
from transdiff_jax.storage.paths import scheme_of

FLAGS = flags.FlagValues()
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "File to convert, also hf://OWNER/NAME/FILE; with --to-torch, the folder.",
    flag_values=FLAGS,
    required=True,
)
KIND = flags.DEFINE_enum(
    "kind", None, ["transdiff", "kl16", "inception"], "Network in the checkpoint.", flag_values=FLAGS, required=True
)
OUT = flags.DEFINE_string(
    "out", None, "New folder; with --to-torch, the .pth file (or a folder for it).", flag_values=FLAGS, required=True
)
TO_TORCH = flags.DEFINE_bool(
    "to-torch", False, "Convert a checkpoint of ours to one of the release.", flag_values=FLAGS
)
HEADS = define_integer(
    "heads",
    None,
    ranges.HEADS,
    "Attention heads of a model with an unpublished width (tensors do not show them).",
    FLAGS,
)
TOKENIZER = flags.DEFINE_string(
    "tokenizer",
    None,
    "Folder of converted KL-16 weights that decode the samples of the model.",
    flag_values=FLAGS,
)
flags.DEFINE_alias("to_torch", "to-torch", flag_values=FLAGS)


def main() -> None:
    """Converts in the direction that the flags give."""
    _check_flags()
    out, source = app.folder(OUT), _source()
    if KIND.value == "inception":
        table = conversion.import_inception(source, out)
    elif KIND.value == "kl16":
        table = (conversion.export_kl16 if TO_TORCH.value else conversion.import_kl16)(source, out)
    elif TO_TORCH.value:
        table = conversion.export_transdiff(source, out)
    else:
        tokenizer = "" if TOKENIZER.value is None else str(app.folder(TOKENIZER))
        table = conversion.import_transdiff(source, out, heads=HEADS.value, tokenizer=tokenizer)
    print("\n".join(describe(table)))
    logging.info(
        "%s -> %s: %d tensors, %d of them unused", source, out, len(table.reference_shapes()), len(table.unused)
    )


def _source() -> Path:
    if scheme_of(CHECKPOINT.value or "") == SCHEME:
        return run_folder(CHECKPOINT) if TO_TORCH.value else fetch(parse_name(CHECKPOINT.value or ""))
    return app.folder(CHECKPOINT)


def _check_flags() -> None:
    if KIND.value == "inception" and TO_TORCH.value:
        raise UserError(
            "--to-torch does not go with --kind=inception: these weights are never changed here; keep their file"
        )
    if KIND.value != "transdiff" or TO_TORCH.value:
        for flag in (HEADS, TOKENIZER):
            if FLAGS[flag.name].present:
                raise UserError(f"--{flag.name} goes only with --kind=transdiff, without --to-torch; leave it out")


if __name__ == "__main__":
    app.run(main, FLAGS)
