#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU slice. The workers find each other.
# Fill in: NAME of the TPU (and its zone, if gcloud has no default one: CLOUDSDK_COMPUTE_ZONE).
#
#   NAME=my-tpu launch/tpu_pod.sh --config=configs/transdiff_h.py --workdir=gs://BUCKET/RUN \
#       [--config.section.field=VALUE ...]
#
# Every worker needs this repository in ~/transdiff_jax, with 'jax[tpu]' and the extra gcs in its .venv. The data may be
# in the bucket, too (docs/storage.md). A workdir that all workers see through Filestore or NFS does as well. The same
# command resumes. Ctrl-C here only ends the connection. To save and stop, run pkill -TERM -f cli.train on any worker.
set -euo pipefail

if [[ -z ${NAME:-} ]] || (($# == 0)); then
  echo "error: usage: NAME=TPU launch/tpu_pod.sh --config=FILE --workdir=gs://BUCKET/RUN [--config.section.field=...]" >&2
  exit 2
fi
# A folder of all workers also keeps compiled programs; a bucket cannot. A --compile_cache of the user comes later and
# counts.
for flag in "$@"; do
  [[ $flag != --workdir=* || $flag == --workdir=gs://* ]] || set -- "--compile_cache=${flag#--workdir=}/compile_cache" "$@"
done
printf -v flags ' %q' "$@"
exec gcloud compute tpus tpu-vm ssh "$NAME" --worker=all \
  --command="cd ~/transdiff_jax && JAX_PLATFORMS=tpu,cpu exec .venv/bin/python -m transdiff_jax.cli.train$flags"
