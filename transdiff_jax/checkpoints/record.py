"""The record of a run, which each checkpoint holds beside the arrays."""

import dataclasses

import orbax.checkpoint as ocp

from transdiff_jax.config import Config, make_config
from transdiff_jax.storage.files import Json

FOLDER = "checkpoints"  # of a workdir
STATE, RUN = "state", "run"  # the two items of a step
NO_DATA: Json = {}  # data state of weights that were not trained here: they can be sampled, but not resumed


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Configuration, data state and training time; written and read as JSON."""

    config: Config
    data: Json  # state of the data iterator, or NO_DATA
    train_seconds: float  # spent training up to this step, over all restarts
    class_names: tuple[str, ...] = ()  # of all classes; empty if unknown

    def to_json(self) -> Json:
        """A JSON value, the inverse of `from_json`."""
        return {
            "config": self.config.to_dict(),
            "data": self.data,
            "train_seconds": self.train_seconds,
            "class_names": list(self.class_names),
        }

    @classmethod
    def from_json(cls, value: Json) -> "RunRecord":
        """The record that `to_json` wrote.

        Raises:
            UserError: the configuration has fields that this version does not know.
        """
        names = tuple(value.get("class_names", ()))  # checkpoints of version 0.1 have none
        return cls(make_config(value["config"]), value["data"], value["train_seconds"], names)


def read_record(manager: ocp.CheckpointManager, step: int) -> RunRecord:
    """The record of a step."""
    restored = manager.restore(step, args=ocp.args.Composite(**{RUN: ocp.args.JsonRestore()}))
    return RunRecord.from_json(restored[RUN])
