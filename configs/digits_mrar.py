"""MRAR on the embedded digits, fine-tuned from the 1-step run: each image refers to those before it.

Command:   python -m transdiff_jax.cli.train --config=configs/digits_mrar.py --workdir=runs/digits/mrar
           (after configs/digits.py was trained into runs/digits/one_step)
Hardware:  two CPU cores, a few minutes.
Expected:  docs/benchmarks.md holds what was measured.
Source:    the toy setting of this project; sizes are not from the paper.
"""

import importlib.util
from pathlib import Path

import ml_collections
