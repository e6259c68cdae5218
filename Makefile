SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: test lint types demo docs
test demo:
	bash launch/$@.sh
lint:
	source launch/environment.sh dev; .venv/bin/pre-commit run --all-files
types:
	source launch/environment.sh dev; .venv/bin/pyrefly check
docs:
	source launch/environment.sh dev; JAX_PLATFORMS=cpu .venv/bin/python -m pytest tests/docs_test.py
