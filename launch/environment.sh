# shellcheck shell=bash
# Sourced by the other scripts: makes .venv and installs what is missing.
# Usage: source launch/environment.sh EXTRAS (of pyproject.toml, separated by commas)

extras=$1
python=${PYTHON:-python3}

stop() {
  echo "error: $1" >&2
  exit 2
}

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  command -v "$python" >/dev/null || stop "$python not found: install Python 3.11 or newer, or set PYTHON=/path/to/it"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || stop "$("$python" --version) is too old: Python 3.11 or newer is needed (set PYTHON=/path/to/it)"
  echo "making .venv"
  rm -rf .venv
  "$python" -m venv .venv || {
    rm -rf .venv
    stop "$python cannot make virtual environments: on Debian and Ubuntu, apt install python3-venv"
  }
fi

# Installs once per content of the files that decide what is installed.
stamp=.venv/.installed-$(cat requirements.txt constraints.txt pyproject.toml - <<<"$extras" | sha256sum | cut -c 1-16)
if [ ! -e "$stamp" ]; then
  echo "installing transdiff_jax[$extras] (a minute or two)"
  install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extras]")
  # A pinned version may not exist for this Python or machine. The installation must work nevertheless.
  "${install[@]}" --constraint constraints.txt || {
    echo "warning: the versions of constraints.txt cannot be installed: trying without them" >&2
    "${install[@]}"
  }
  touch "$stamp"
fi
