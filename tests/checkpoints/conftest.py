import shutil

import jax
import pytest

from tests.support import runs
from transdiff_jax.config import MeshConfig
from transdiff_jax.parallel.mesh import make_mesh


@pytest.fixture(scope="session")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="session")
def state(mesh):
    """A state whose parameters and two averages all differ."""
    return runs.make_state(mesh)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, state):
    workdir = tmp_path_factory.mktemp("pristine")
    runs.save_steps(workdir, state, [1, 2])
    return workdir


@pytest.fixture
def workdir(pristine, tmp_path):
    """A run with intact steps 1 and 2."""
    return shutil.copytree(pristine, tmp_path / "run")
