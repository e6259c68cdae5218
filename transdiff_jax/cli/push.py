"""Publishes an average of a run on the Hugging Face Hub, with its configuration and a model card.

transdiff push --workdir=RUN --repo=OWNER/NAME --license=apache-2.0 [--certificates=samples/evaluation.transdiff.json]

Needs huggingface_hub and safetensors: pip install 'transdiff_jax[hub]'. Log in first: hf auth login.
"""

from absl import flags

from transdiff_jax.cli import app
from transdiff_jax.hub.publishing import push
from transdiff_jax.storage.paths import user_path

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=FLAGS, required=True)
REPO = flags.DEFINE_string("repo", None, "OWNER/NAME on the hub; made if needed.", flag_values=FLAGS, required=True)
LICENSE = flags.DEFINE_string(
    "license", None, "Licence of the weights, as the hub names it: apache-2.0.", flag_values=FLAGS, required=True
)
EMA_RATE = flags.DEFINE_float("ema_rate", None, "Which average; default: the run's first.", flag_values=FLAGS)
CERTIFICATES = flags.DEFINE_list(
    "certificates", [], "Files of transdiff evaluate with scores of this average.", flag_values=FLAGS
)
PRIVATE = flags.DEFINE_bool("private", False, "Make a new repository private.", flag_values=FLAGS)


def main() -> None:
    """Publishes, and prints what td.load takes."""
    certificates = [user_path(path, f"--{CERTIFICATES.name}") for path in CERTIFICATES.value]
    made = push(
        app.place(WORKDIR),
        REPO.value or "",
        licence=LICENSE.value or "",
        ema_rate=EMA_RATE.value,
        certificates=certificates,
        private=PRIVATE.value,
    )
    print(made)


if __name__ == "__main__":
    app.run(main, FLAGS)
