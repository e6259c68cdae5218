"""What a run trains, beside what its configuration says: an objective, what it reads, and what its grids show."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jax.sharding import Mesh
from jaxtyping import PyTree

from transdiff_jax.checkpoints.record import TeacherRecord
from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import Config
from transdiff_jax.model.params import Params
from transdiff_jax.sampling.sampler import Sampler
from transdiff_jax.training.objective import Objective


class Grid(NamedTuple):
    """Samples that a run draws now and then."""

    sampler: Sampler
    params: Params | None  # None: the run's first average


@dataclasses.dataclass(frozen=True)
class Task:
    """What `training.loop.run` trains."""

    objective: Objective | None = None  # None: the joint flow-matching loss
    frozen: PyTree = ()  # arrays on the mesh that the objective reads
    start: Weights | None = None  # where a new run starts; None: config.train.init_from, or from scratch
    teacher: TeacherRecord | None = None  # kept in the run's record
    grids: Mapping[str, Grid] = dataclasses.field(default_factory=dict)  # beside the samples of the run itself


# From the configuration, the mesh, and the teacher of the checkpoint to resume from, if there is one.
MakeTask = Callable[[Config, Mesh, TeacherRecord | None], Task]
