"""The record of a run, which each checkpoint holds beside the arrays."""

import dataclasses
from pathlib import Path

from transdiff_jax.config import Config, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import DamageError
from transdiff_jax.storage.files import Json
from transdiff_jax.storage.json_files import JsonError, read_json

FOLDER = "checkpoints"  # of a workdir
MOST_SECONDS, MOST_ROWS = 1e12, 2**63  # of training
RUN = "run"  # the item of a step
RECORD = f"{RUN}/metadata"  # its file, as Orbax names it
NO_DATA: Json = {}  # data state of weights that were not trained here: they can be sampled, but not resumed


@dataclasses.dataclass(frozen=True)
class TeacherRecord:
    """Which weights a student imitates."""

    step: int
    weights: str  # "raw", or "ema" and the rate
    digest: str  # of the checkpoint, as in `Weights`

    @classmethod
    def from_json(cls, value: object) -> "TeacherRecord | None":
        """The teacher in a record; None for a run that is no student.

        Raises:
            DamageError: the value describes no teacher.
        """
        if value is None:
            return None
        fields = {"step": int, "weights": str, "digest": str}
        if not isinstance(value, dict) or {name: type(field) for name, field in value.items()} != fields:
            raise DamageError("the record's teacher has no step, weights and digest")
        return cls(**value)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Configuration, data state and training time; written and read as JSON."""

    config: Config
    data: Json  # state of the data iterator, or NO_DATA
    train_seconds: float  # spent training up to this step, over all restarts
    class_names: tuple[str, ...] = ()  # of all classes; empty if unknown
    tokenizer_sha256: str = ""  # of the weights that latents come from; empty if there are none, or unknown
    teacher: TeacherRecord | None = None  # of a few-step student

    def to_json(self) -> Json:
        """A JSON value, the inverse of `from_json`."""
        return {
            "config": self.config.to_dict(),
            "data": self.data,
            "train_seconds": self.train_seconds,
            "class_names": list(self.class_names),
            "tokenizer_sha256": self.tokenizer_sha256,
            **({} if self.teacher is None else {"teacher": dataclasses.asdict(self.teacher)}),
        }

    @classmethod
    def from_json(cls, value: object) -> "RunRecord":
        """The record that `to_json` wrote.

        Raises:
            DamageError: the value is no record, or its configuration is not one of this version.
        """
        if not isinstance(value, dict):
            raise DamageError("the record is not a JSON object")
        names = value.get("class_names", [])  # checkpoints of version 0.1 have neither
        tokenizer = value.get("tokenizer_sha256", "")
        config, data, seconds = (value.get(name) for name in ("config", "data", "train_seconds"))
        if not isinstance(config, dict) or not isinstance(data, dict):
            raise DamageError("the record has no configuration or no data state")
        if not all(isinstance(place, int) and 0 <= place < MOST_ROWS for place in data.values()):
            raise DamageError("the record's data state is no place in the data")
        if not isinstance(seconds, int | float) or not 0 <= seconds < MOST_SECONDS:
            raise DamageError("the record has no training time")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DamageError("the record's class_names are no list of names")
        if not isinstance(tokenizer, str):
            raise DamageError("the record's tokenizer_sha256 is no digest")
        try:
            teacher = TeacherRecord.from_json(value.get("teacher"))
            made = make_config(config)
            if not made.model.num_classes:
                raise DamageError("the record's config.model.num_classes is 0, but a run has classes")
            return cls(made, data, float(seconds), tuple(names), tokenizer, teacher)
        except UserError as error:
            raise DamageError(f"the record's {error}") from None


def read_record(step_folder: Path) -> RunRecord:
    """The record of a step.

    Raises:
        DamageError: there is none.
    """
    try:
        return RunRecord.from_json(read_json(step_folder / RECORD))
    except FileNotFoundError:
        raise DamageError(f"{RECORD} is missing") from None
    except JsonError as error:
        raise DamageError(f"{RECORD} {error}") from None
