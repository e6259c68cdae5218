"""Settings of all tests, and the tiny configuration as a fixture."""

import gc
import os

import jax
import jaxlib.version
import pytest
from jaxtyping import install_import_hook

from tests.support import buckets
from tests.support.configs import tiny_config
from transdiff_jax.config import Config
from transdiff_jax.data.sources.digits import prepare_digits
from transdiff_jax.storage.paths import location

# In the tests these packages, none of which is imported yet, check types and shapes of arguments and results.
CHECKED = ("flow", "nn", "model", "tokenizer", "sampling", "evaluation", "training.step")
install_import_hook([f"transdiff_jax.{name}" for name in CHECKED], "beartype.beartype")

# Before anything touches a device: the tests shard over eight virtual ones.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
# Compiling is most of the suite's time, and tiny arrays gain nothing from optimised code.
jax.config.update("jax_disable_most_optimizations", True)
# Nor from XLA's newer way of writing loops for CPUs, which takes twice as long to compile. jaxlib 0.11.1 dropped the
# flag, and XLA ends the process at a flag that it does not know.
FLAGS = " --xla_cpu_use_fusion_emitters=false" if jaxlib.version.__version_info__ < (0, 11, 1) else ""
# Nor from splitting a program of a few kernels into 32 modules, which are optimised apart.
FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + FLAGS


def pytest_collection_finish() -> None:
    """Keeps what is imported out of each collection of garbage: they are some 200,000 objects that live to the end."""
    gc.freeze()


@pytest.fixture(params=[False, True], ids=["one_step", "mrar"])
def config(request) -> Config:
    """The tiny configuration, once for each kind of model."""
    return tiny_config(request.param)


@pytest.fixture(scope="session")
def digits_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits")
    prepare_digits(str(directory))
    return directory


@pytest.fixture(scope="session")
def bucket_server():
    """A server of buckets, which the clients of this process use from then on."""
    with buckets.bucket_server() as server:
        yield server


@pytest.fixture
def bucket(bucket_server, tmp_path):
    """A folder in a bucket, as a path."""
    return location(f"gs://{buckets.BUCKET}/{tmp_path.name}", "bucket")


@pytest.fixture
def digits_config(digits_directory):
    """A tiny configuration that reads the prepared digits; takes what `tiny_config` takes."""

    def make(mrar=False, data=None, **sections):
        return tiny_config(mrar, data={"directory": str(digits_directory)} | (data or {}), **sections)

    return make


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module():
    """Lets go of a module's compiled programs.

    Each holds a few memory maps, and Linux allows a process 65,530: a whole run in one process ended in a
    segmentation fault.
    """
    yield
    jax.clear_caches()
