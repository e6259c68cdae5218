#!/usr/bin/env bash
# Lint, types and tests, as in CI. Arguments go to pytest: launch/test.sh tests/nn -x
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh dev

# Most of the suite's time would be compilation; the cache is shared by all tests and kept between runs.
export JAX_PLATFORMS=cpu
export JAX_COMPILATION_CACHE_DIR=$PWD/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyrefly check
.venv/bin/python -m pytest -n "${TEST_WORKERS:-2}" "$@"
