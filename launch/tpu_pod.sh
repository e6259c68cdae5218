#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU slice. The workers find each other.
# Fill in: NAME of the TPU (and its zone, if gcloud has no default one: CLOUDSDK_COMPUTE_ZONE).
#
#   NAME=my-tpu launch/tpu_pod.sh --config=configs/transdiff_h.py --workdir=DIR [--config.section.field=VALUE ...]
#
# Every worker needs this repository in ~/transdiff_jax, with 'jax[tpu]' in its .venv. All must see the workdir:
# gs://BUCKET/FOLDER (with the extra gcs), Filestore or NFS. The same command resumes. Ctrl-C here only ends the
# connection. To save and stop, run pkill -TERM -f cli.train on any worker.
set -euo pipefail

if [[ -z ${NAME:-} ]] || (($# == 0)); then
  echo "error: usage: NAME=TPU launch/tpu_pod.sh --config=FILE --workdir=DIR [--config.section.field=VALUE ...]" >&2
  exit 2
fi
# All processes see the workdir, and it outlives them. A --compile_cache of the user comes later and counts. Compiled
# programs are kept in local folders only, so that a workdir in a bucket takes none.
for flag in "$@"; do
  [[ $flag != --workdir=* || $flag == --workdir=gs://* ]] || set -- "--compile_cache=${flag#--workdir=}/compile_cache" "$@"
done
printf -v flags ' %q' "$@"
exec gcloud compute tpus tpu-vm ssh "$NAME" --worker=all \
  --command="cd ~/transdiff_jax && JAX_PLATFORMS=tpu,cpu exec .venv/bin/python -m transdiff_jax.cli.train$flags"
