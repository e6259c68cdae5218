"""Describes the hardware and software of a run, for records."""

from typing import Any

import flax
import jax
import jaxlib
import numpy as np
import PIL
import scipy
from jax.sharding import Mesh

from transdiff_jax import __version__


def describe_machine(mesh: Mesh) -> dict[str, Any]:
    """The mesh's devices, the number of processes, and the versions of the packages that compute or read images."""
    packages = {"jax": jax, "jaxlib": jaxlib, "flax": flax, "numpy": np, "scipy": scipy, "pillow": PIL}
    return {
        "versions": {
            "transdiff_jax": __version__,
            **{name: package.__version__ for name, package in packages.items()},
        },
        "device_kind": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "processes": jax.process_count(),
    }
