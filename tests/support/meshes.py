"""Meshes for functions that depend on the mesh that they are traced over."""

import jax

from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.mesh import make_mesh


def over_shards(count):
    """A context in which a batch is split into `count` runs of rows."""
    return axes.over(make_mesh(MeshConfig(data=count), jax.devices()[:count]))
