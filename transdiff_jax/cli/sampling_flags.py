"""Flags of the commands that sample a run: its settings, each replaced where a flag says so."""

import typing
from collections.abc import Sequence
from typing import Any

from absl import flags
from jax.sharding import Mesh

from transdiff_jax.config import Config, MeshConfig, SamplingConfig, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.flow.solvers import SOLVERS
from transdiff_jax.parallel.mesh import make_mesh


class SamplingFlags:
    """The flags in one command's `FlagValues`."""

    def __init__(self, flag_values: flags.FlagValues) -> None:
        """Defines them."""
        self.seed = flags.DEFINE_integer(
            "seed",
            0,
            "Seed of the noise; a sample depends on it and on its index.",
            0,
            2**31 - 1,
            flag_values=flag_values,
        )
        self._lists = _define_lists(flag_values)
        self._values = _define_values(flag_values)
        self.batch_size = flags.DEFINE_integer(
            "batch_size", None, "Images at once, over all devices; default: the run's.", flag_values=flag_values
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
            "tokenizer", None, "Folder of KL-16 weights (cli.convert); default: the run's.", flag_values=flag_values
        )

    def names(self) -> list[str]:
        """All flags but --batch_size."""
        holders = (self.seed, self.ema_rate, self._mesh, self._tokenizer)
        return [*(holder.name for holder in holders), *self._lists, *self._values]

    def mesh(self) -> Mesh:
        """The mesh of all devices to sample on.

        Raises:
            UserError: not three whole numbers, or sizes that do not fit the devices.
        """
        sizes = numbers("--mesh", self._mesh.value, int)
        if len(sizes) != 3:
            raise UserError(f"--mesh={','.join(self._mesh.value)} must be DATA,FSDP,TENSOR, such as --mesh=1,-1,1")
        return make_mesh(MeshConfig(*sizes), field="--mesh")

    def apply(self, config: Config) -> Config:
        """A run's configuration with the settings that were given on the command line.

        Raises:
            UserError: a value that is no number or out of range, or a flag that the settings leave without effect.
        """
        given: dict[str, Any] = {name: holder.value for name, holder in self._values.items()}
        given |= self._steps() | {"batch_size": self.batch_size.value}
        given |= {
            name: numbers(f"--{name}", self._lists[name].value, float) for name in ("guidance", "guidance_interval")
        }
        values = config.to_dict()
        values["sampling"] |= {name: value for name, value in given.items() if value is not None}
        if self._tokenizer.value is not None:
            values["tokenizer"]["weights"] = self._tokenizer.value
        changed = make_config(values)
        self._check_read(changed.sampling)
        return changed

    def _steps(self) -> dict[str, Any]:
        """One number of steps is for all images, also where the run has several."""
        steps = numbers("--steps", self._lists["steps"].value, int)
        if steps is None:
            return {}
        return {"steps": steps[0], "steps_by_image": ()} if len(steps) == 1 else {"steps_by_image": steps}

    def _check_read(self, sampling: SamplingConfig) -> None:
        """Raises a UserError for a flag that the settings leave without effect."""
        stochastic, power = sampling.solver == "euler_maruyama", sampling.guidance_schedule == "power_cosine"
        for name, effective, need in (
            ("drift_scale", stochastic, "the solver euler_maruyama"),
            ("noise_scale", stochastic, "the solver euler_maruyama"),
            ("guidance_power", power, "--guidance_schedule=power_cosine"),
        ):
            if self._values[name].value is not None and not effective:
                raise UserError(f"--{name} has an effect with {need} only")


def _define_lists(flag_values: flags.FlagValues) -> dict[str, flags.FlagHolder]:
    """Flags of several numbers."""
    meanings = {
        "steps": "Solver steps, or one number for each MRAR image: --steps=25,25,25,100.",
        "guidance": "Guidance weight, or one for each MRAR image; 1: off.",
        "guidance_interval": "Times between which guidance is on: --guidance_interval=0.1,0.8.",
    }
    return {name: flags.DEFINE_list(name, None, meaning, flag_values=flag_values) for name, meaning in meanings.items()}


def _define_values(flag_values: flags.FlagValues) -> dict[str, flags.FlagHolder]:
    """Flags that are a field of `SamplingConfig` each."""
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
            "How the weight grows on the way from noise to data; default: the run's.",
            flag_values=flag_values,
        ),
        **{
            name: flags.DEFINE_float(name, None, meaning, flag_values=flag_values) for name, meaning in meanings.items()
        },
    }


def numbers(flag: str, texts: Sequence[str] | None, kind: type) -> tuple | None:
    """A list flag's numbers, or None where it was not given.

    Raises:
        UserError: one of them is not a number of that kind.
    """
    return None if texts is None else tuple(_number(flag, text, kind) for text in texts)


def _number(flag: str, text: str, kind: type) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{flag}: {text!r} is not a{' whole' if kind is int else ''} number") from None
