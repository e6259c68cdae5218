#!/usr/bin/env bash
# Trains on all GPUs of this machine, in one process. Needs pip install 'jax[cuda12]' in .venv.
# Fill in: the configuration and the folder of the run, as flags.
#
#   launch/gpu_node.sh --config=configs/transdiff_b.py --workdir=DIR [--config.section.field=VALUE ...]
#
# The same command resumes. config.mesh says how to use the GPUs; by default all of them are data parallel.
set -euo pipefail
cd "$(dirname "$0")/.."

(($#)) || {
  echo "error: usage: launch/gpu_node.sh --config=FILE --workdir=DIR [--config.section.field=VALUE ...]" >&2
  exit 2
}
# If JAX cannot use a GPU, training fails instead of running on the CPU.
export JAX_PLATFORMS=cuda
exec .venv/bin/python -m transdiff_jax.cli.train "$@"
