"""TPU slices that are not there, described to the compiler in libtpu."""

import importlib.util
import os

import jax
from jax.experimental import topologies

from transdiff_jax.benchmark.chips import TPUS
from transdiff_jax.errors import UserError

# libtpu reads the slice that it runs on from these, or else from a cloud machine's metadata server. Here there is none.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def prepare() -> None:
    """Sets what libtpu reads when it is loaded, and keeps JAX itself on the CPU. Call it before touching a device.

    Raises:
        UserError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("--what=aot needs the TPU compiler, which is not installed: pip install 'jax[tpu]'")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")


def devices(topology: str, num_slices: int) -> list[jax.Device]:
    """Devices to compile for.

    Args:
        topology: a chip of `TPUS` and the shape of a slice, such as "v5e:4x4".
        num_slices: how many slices of that shape the data center network joins.

    Raises:
        UserError: the chip or the shape does not exist.
    """
    if topology.partition(":")[0] not in TPUS:
        raise UserError(f"--topology={topology} must be one of {', '.join(TPUS)} and a shape, such as v5e:4x4")
    slices = {"num_slices": num_slices} if num_slices > 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **slices).devices)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        raise UserError(f"--topology={topology}: libtpu knows no such slice: {str(error).splitlines()[0]}") from None
