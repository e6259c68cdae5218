#!/usr/bin/env bash
# Runs lint, types and tests, as in CI. Arguments go to pytest: launch/test.sh tests/nn -x
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh dev

# Compilation would take most of the suite's time. All tests share this cache, which stays between runs.
export JAX_PLATFORMS=cpu
export JAX_COMPILATION_CACHE_DIR=$PWD/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyrefly check
# A file stays in one worker, because its tests share compiled programs and trained runs.
.venv/bin/python -m pytest -n "${TEST_WORKERS:-2}" --dist loadfile "$@"
