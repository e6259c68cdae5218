"""Flags of the commands that sample a run. Each replaces one of the run's settings."""

import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from absl import flags
from jax.sharding import Mesh

from transdiff_jax.cli.number_flags import define_integer
from transdiff_jax.config import Config, MeshConfig, SamplingConfig, make_config
from transdiff_jax.config.ranges import ROWS, SEEDS
from transdiff_jax.errors import UserError
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.generation.numerics import Numerics, choices, with_numerics
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.paths import location

Number = TypeVar("Number", int, float)


class SamplingFlags:
    """The sampling flags of one command."""

    def __init__(self, flag_values: flags.FlagValues) -> None:
        """Defines them among the command's flags."""
        self.seed = define_integer(
            "seed", 0, SEEDS, "Seed of the noise; a sample depends on it and on its index.", flag_values
        )
        self._lists = _define_lists(flag_values)
        self._values = _define_values(flag_values)
        self.batch_size = define_integer(
            "batch_size", None, ROWS, "Images at once, over all devices; default: the run's.", flag_values
        )
        self.ema_rate = flags.DEFINE_float(
            "ema_rate", None, "Which average to sample from; default: the run's first.", flag_values=flag_values
        )
        self._mesh = flags.DEFINE_list(
            "mesh",
            ["-1", "1", "1"],
            "Devices as DATA,FSDP,TENSOR, one of them -1 for what remains; --mesh=1,-1,1 splits the weights over all.",
            flag_values=flag_values,
        )
        self._tokenizer = flags.DEFINE_string(
            "tokenizer",
            None,
            "Folder of KL-16 weights (transdiff convert); default: the run's.",
            flag_values=flag_values,
        )
        self._numerics = _define_numerics(flag_values)

    def names(self) -> list[str]:
        """The names of all flags except --batch_size."""
        holders = (self.seed, self.ema_rate, self._mesh, self._tokenizer)
        return [*(holder.name for holder in holders), *self._lists, *self._values, *self._numerics]

    def mesh(self) -> Mesh:
        """The mesh over all devices.

        Raises:
            UserError: the flag is not three whole numbers, or its sizes do not fit the devices.
        """
        sizes = numbers("--mesh", self._mesh.value, int)
        if len(sizes) != 3:
            raise UserError(f"--mesh={','.join(self._mesh.value)} must be DATA,FSDP,TENSOR, such as --mesh=1,-1,1")
        return make_mesh(MeshConfig(*sizes), field="--mesh")

    def apply(self, config: Config, mesh: Mesh) -> Config:
        """A run's configuration with the settings of the command line, for the devices of a mesh.

        Raises:
            UserError: a value is not a number or out of range, a flag has no effect with these settings, or the devices
                cannot run them.
        """
        given: dict[str, Any] = {name: holder.value for name, holder in self._values.items()}
        given |= self._steps() | {"batch_size": self.batch_size.value}
        for name in ("guidance", "guidance_interval"):
            texts = self._lists[name].value
            given[name] = None if texts is None else numbers(f"--{name}", texts, float)
        values = config.to_dict()
        values["sampling"] |= {name: value for name, value in given.items() if value is not None}
        if self._tokenizer.value is not None:
            if config.tokenizer.kind == "pixels":
                raise UserError("--tokenizer has an effect only on runs with KL-16; this run makes pixels")
            values["tokenizer"]["weights"] = str(location(self._tokenizer.value, "--tokenizer"))
        changed = make_config(values)
        self._check_read(changed.sampling)
        return with_numerics(changed, mesh, Numerics(**{name: flag.value for name, flag in self._numerics.items()}))

    def _steps(self) -> dict[str, Any]:
        """The fields of --steps: a single number holds for all images, even if the run has one for each."""
        texts = self._lists["steps"].value
        if texts is None:
            return {}
        steps = numbers("--steps", texts, int)
        return {"steps": steps[0], "steps_by_image": ()} if len(steps) == 1 else {"steps_by_image": steps}

    def _check_read(self, sampling: SamplingConfig) -> None:
        """Raises a UserError for a flag that has no effect with these settings."""
        stochastic, power = sampling.solver == "euler_maruyama", sampling.guidance_schedule == "power_cosine"
        for name, effective, need in (
            ("drift_scale", stochastic, "the solver euler_maruyama"),
            ("noise_scale", stochastic, "the solver euler_maruyama"),
            ("guidance_power", power, "--guidance_schedule=power_cosine"),
        ):
            if self._values[name].value is not None and not effective:
                raise UserError(f"--{name} has an effect only with {need}")


def _define_lists(flag_values: flags.FlagValues) -> dict[str, flags.FlagHolder[list[str] | None]]:
    """Flags that hold several numbers."""
    meanings = {
        "steps": "Solver steps, or one number for each MRAR image: --steps=25,25,25,100.",
        "guidance": "Guidance weight, or one for each MRAR image; 1: off.",
        "guidance_interval": "Times between which guidance is on: --guidance_interval=0.1,0.8.",
    }
    return {name: flags.DEFINE_list(name, None, meaning, flag_values=flag_values) for name, meaning in meanings.items()}


def _define_values(flag_values: flags.FlagValues) -> dict[str, flags.FlagHolder]:
    """Flags that each set one field of `SamplingConfig`."""
    schedules = typing.get_args(typing.get_type_hints(SamplingConfig)["guidance_schedule"])
    meanings = {
        "guidance_power": "Exponent of the power_cosine schedule; default: the run's.",
        "drift_scale": "scale_0 of Euler-Maruyama; default: the run's.",
        "noise_scale": "scale_1 of Euler-Maruyama; default: the run's.",
    }
    return {
        "solver": flags.DEFINE_enum(
            "solver", None, sorted(SOLVERS), "Default: the run's config.sampling.solver.", flag_values=flag_values
        ),
        "guidance_schedule": flags.DEFINE_enum(
            "guidance_schedule",
            None,
            schedules,
            "How the weight grows from noise to data; default: the run's.",
            flag_values=flag_values,
        ),
        **{
            name: flags.DEFINE_float(name, None, meaning, flag_values=flag_values) for name, meaning in meanings.items()
        },
    }


def _define_numerics(flag_values: flags.FlagValues) -> dict[str, flags.FlagHolder[str | None]]:
    """Flags that each set one field of `Numerics`."""
    meanings = {
        "dtype": "Of the computation; default: bfloat16 on NVIDIA GPUs that multiply it, else the run's.",
        "attention": "Default: cudnn on such GPUs where it can run, else the run's.",
        "tokenizer_dtype": "In which KL-16 decodes; default: the run's.",
    }
    return {
        name: flags.DEFINE_enum(name, None, choices(name), meaning, flag_values=flag_values)
        for name, meaning in meanings.items()
    }


def numbers(flag: str, texts: Sequence[str], kind: type[Number]) -> tuple[Number, ...]:
    """The numbers of a list flag.

    Raises:
        UserError: one of them is not a number of that kind.
    """
    return tuple(_number(flag, text, kind) for text in texts)


def _number(flag: str, text: str, kind: type[Number]) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{flag}: {text!r} is not a{' whole' if kind is int else ''} number") from None
