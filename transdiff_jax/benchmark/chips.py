"""Published figures of TPU chips, for expected times. Nothing here is measured.

Source: docs.cloud.google.com/tpu/docs/v5e, v5p and v6e ("System architecture"). Interconnect figures are one direction
over all links of a chip (half of the "bidirectional" figure). The data center network is a pod's figure for each chip.
"""

from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One chip; bandwidths in bytes/s."""

    flops: float  # peak FLOP/s in bfloat16
    hbm_bytes: int
    hbm: float
    ici: float  # between chips of a slice
    dcn: float  # between slices


CHIPS: dict[str, Chip] = {
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9, 25e9 / 8),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9, 50e9 / 8),
    "v6e": Chip(918e12, 32 * GIB, 1600e9, 400e9, 100e9 / 8),
}
