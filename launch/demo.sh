#!/usr/bin/env bash
# The whole job on the embedded digits: trains 1-step TransDiff, fine-tunes it to MRAR, distills a few-step student of
# each, samples all, scores all.
# Everything goes to runs/digits. Running it again resumes what was stopped, or says that everything is done.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh demo

# glibc gives the memory of a step back after each step, and clearing its pages anew takes less time with huge ones.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

out=runs/digits
run() {
  echo "+ python -m transdiff_jax.cli.$*"
  .venv/bin/python -m "transdiff_jax.cli.$1" "${@:2}"
}

run train --config=configs/digits.py --workdir=$out/one_step
run train --config=configs/digits_mrar.py --workdir=$out/mrar
run distill --config=configs/digits_student.py --workdir=$out/one_step_student
run distill --config=configs/digits_mrar_student.py --workdir=$out/mrar_student
run sample --workdir=$out/one_step --out=$out/samples/one_step --num_samples=1000
run sample --workdir=$out/mrar --out=$out/samples/mrar --num_samples=1000 --all_images
run digits_report --folder=$out
