"""What chips can do, for expected times. The figures come from public tables and were not measured here.

TPUs: docs.cloud.google.com/tpu/docs/v5e, v5p and v6e ("System architecture"). Interconnect figures are one direction
over all links of a chip (half of the "bidirectional" figure). The data center network is a pod's figure for each chip.
Integer operations: 8 x 128 lanes of 4 units a core, at the clock that the peak FLOP/s imply
(jax-ml.github.io/scaling-book/tpus).

GPUs: peak FLOP/s are the best that matrix products reach ("Maximum Achievable Matmul FLOPS" in
github.com/stas00/ml-engineering, compute/accelerator). Memory bandwidth is 0.9 of the published one: an H100 reaches
3.0 of 3.35 TB/s. Sizes, clocks and units for integers: github.com/openxla/xla, xla/backends/gpu/target_config/specs.
Between GPUs: NVLink in one direction (nvidia.com/en-us/data-center/nvlink). Between hosts: one network card for each
GPU (DGX A100: 200 Gbit/s, later ones: 400 Gbit/s).
"""

from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One chip; bandwidths in bytes/s."""

    flops: float  # peak FLOP/s in bfloat16
    hbm_bytes: int
    hbm: float
    ici: float  # between chips of a slice, or GPUs of a host
    dcn: float  # between slices, or hosts of GPUs
    integers: float  # 32-bit integer operations/s, of which random numbers are made


TPUS: dict[str, Chip] = {
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9, 25e9 / 8, 4096 * 1.5e9),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9, 50e9 / 8, 2 * 4096 * 1.75e9),
    "v6e": Chip(918e12, 32 * GIB, 1600e9, 400e9, 100e9 / 8, 4096 * 1.75e9),
}
GPUS: dict[str, Chip] = {
    "a100": Chip(271e12, 85_100_068_864, 0.9 * 2.039e12, 300e9, 25e9, 108 * 64 * 1.41e9),
    "h100": Chip(790e12, 84_942_979_072, 3.0e12, 450e9, 50e9, 132 * 64 * 1.98e9),
    "h200": Chip(790e12, 151_397_597_184, 0.9 * 4.8e12, 450e9, 50e9, 132 * 64 * 1.98e9),
    "b200": Chip(1745e12, 191_514_411_008, 0.9 * 7.67e12, 900e9, 50e9, 148 * 64 * 1.965e9),
}
CHIPS: dict[str, Chip] = TPUS | GPUS
