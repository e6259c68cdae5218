#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU slice, which find each other by themselves.
# Fill in: NAME of the TPU (and its zone, if gcloud has no default one: CLOUDSDK_COMPUTE_ZONE).
#
#   NAME=my-tpu launch/tpu_pod.sh --config=configs/transdiff_h.py --workdir=DIR [--config.section.field=VALUE ...]
#
# Every worker has this repository in ~/transdiff_jax with .venv and 'jax[tpu]' in it; all see the workdir (Filestore, NFS).
# The same command resumes. Ctrl-C here ends the connection only; to save and stop, on any worker: pkill -TERM -f cli.train
set -euo pipefail

if [[ -z ${NAME:-} ]] || (($# == 0)); then
  echo "error: usage: NAME=TPU launch/tpu_pod.sh --config=FILE --workdir=DIR [--config.section.field=VALUE ...]" >&2
  exit 2
fi
printf -v flags ' %q' "$@"
exec gcloud compute tpus tpu-vm ssh "$NAME" --worker=all \
  --command="cd ~/transdiff_jax && JAX_PLATFORMS=tpu,cpu exec .venv/bin/python -m transdiff_jax.cli.train$flags"
