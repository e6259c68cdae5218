"""Meshes for functions that depend on the mesh that they are traced over, or on its kind of devices."""

import types
from unittest import mock

import jax
import numpy as np
from jax.sharding import Mesh

from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel import axes
from transdiff_jax.parallel.mesh import make_mesh


def over_shards(count):
    """A context in which a batch is split into `count` runs of rows."""
    return axes.over(make_mesh(MeshConfig(data=count), jax.devices()[:count]))


def mesh_of(platform, capability="9.0"):
    """A mesh of one device that is not there; the compute capability is that of a GPU."""
    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    return mock.Mock(Mesh, devices=np.array([device]))
