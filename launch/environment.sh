# Sourced by the other scripts: makes .venv and installs what is missing.
# Usage: source launch/environment.sh REQUIREMENTS_FILE

requirements=$1
python=${PYTHON:-python3}

if [ ! -x .venv/bin/python ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $("$python" --version) is too old; Python 3.11 or newer is needed (set PYTHON=/path/to/python3.11)" >&2
    exit 2
  }
  echo "making .venv"
  "$python" -m venv .venv
fi

# Installed once for each content of the files that decide what is installed.
stamp=.venv/.installed-$(cat requirements.txt "$requirements" pyproject.toml | sha256sum | cut -c 1-16)
if [ ! -e "$stamp" ]; then
  echo "installing $requirements (a minute or two)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" -e .
  touch "$stamp"
fi
