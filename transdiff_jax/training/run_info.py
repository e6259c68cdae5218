"""What the folder of a run holds: its settings, its checkpoints with their damage, its scores and its last metrics."""

import datetime
from pathlib import Path

import jax
from flax.traverse_util import flatten_dict

from transdiff_jax.checkpoints.checks import check_step
from transdiff_jax.checkpoints.record import NO_DATA, RunRecord
from transdiff_jax.checkpoints.step_names import saved_steps
from transdiff_jax.checkpoints.steps import DAMAGED_FOLDER
from transdiff_jax.checkpoints.weights import existing_folder
from transdiff_jax.config import Config, ModelConfig
from transdiff_jax.model.params import init_shapes
from transdiff_jax.storage.checksums import DamageError
from transdiff_jax.storage.files import Json
from transdiff_jax.storage.json_files import JsonError, is_number, read_json_object
from transdiff_jax.storage.paths import files_below
from transdiff_jax.training.metric_writers import METRICS_FILE, last_metrics
from transdiff_jax.training.training_scores import CERTIFICATES


def describe_run(workdir: Path) -> Json:
    """Reads all files of a run's checkpoints, and changes nothing.

    Args:
        workdir: the folder of the run.

    Returns:
        JSON: `steps` with their sizes and their damage, `set_aside` (names of damaged steps that a resumed run moved
        away), `scores` and `metrics`; of the newest intact step also `step`, `record` and `config_changes`. These
        three are null if there is no such step.

    Raises:
        UserError: there is no run, or a file exists but cannot be read.
    """
    folder = existing_folder(workdir)
    steps, newest = [], None
    for number in saved_steps(folder):
        record, damage = _checked(folder / str(number))
        if record is None and number not in saved_steps(folder):
            continue  # a trainer has deleted it since
        steps.append({"step": number, "bytes": _bytes(folder / str(number)), "damage": damage})
        newest = newest if record is None else (number, record)
    aside = workdir / DAMAGED_FOLDER
    return {
        "workdir": str(workdir),
        "bytes": _bytes(workdir),
        "step": None if newest is None else newest[0],
        "record": None if newest is None else _described(newest[1]),
        "config_changes": None if newest is None else config_changes(newest[1].config),
        "steps": steps,
        "set_aside": sorted(path.name for path in aside.iterdir()) if aside.is_dir() else [],
        "scores": _scores(workdir / CERTIFICATES),
        "metrics": _metrics(workdir / METRICS_FILE),
    }


def config_changes(config: Config) -> Json:
    """The fields that differ from the defaults, by their path without "config."."""
    defaults = flatten_dict(Config().to_dict(), sep=".")
    return {name: value for name, value in flatten_dict(config.to_dict(), sep=".").items() if value != defaults[name]}


def parameter_count(model: ModelConfig) -> int:
    """How many numbers the parameters of a model are."""
    return sum(leaf.size for leaf in jax.tree.leaves(init_shapes(model)))


def info_lines(info: Json) -> list[str]:
    """What `describe_run` returned, as lines for people."""
    record, lines = info["record"], [f"{info['workdir']}: {_size(info['bytes'])}"]
    if record is None:
        lines.append("no intact checkpoint: the settings of the run are not known")
    else:
        lines.append(f"step {info['step']} of {record['planned_steps']}, trained for {_time(record['train_seconds'])}")
        classes = f"{record['classes']} classes ({record['class_names']} of them with names)"
        lines.append(f"{record['kind']}, {record['parameters']:,} parameters, {classes}")
        lines += [f"config.{name} = {value!r}" for name, value in info["config_changes"].items()]
    for step in info["steps"]:
        state = "intact" if step["damage"] is None else f"damaged: {step['damage']}"
        lines.append(f"checkpoint {step['step']}: {_size(step['bytes'])}, {state}")
    lines += [f"damaged checkpoint {name}: moved to {DAMAGED_FOLDER}/{name}" for name in info["set_aside"]]
    for entry in info["scores"]:
        found = ", ".join(f"{name} {value:.5g}" for name, value in entry["scores"].items() if value is not None)
        lines.append(f"scores at step {entry['step']} ({entry['protocol']}, {entry['num_samples']} samples): {found}")
    lines += [f"{name} {entry['value']:.6g} (step {entry['step']})" for name, entry in info["metrics"].items()]
    return [line if line.isprintable() else ascii(line)[1:-1] for line in lines]  # names are as files give them


def _checked(step_folder: Path) -> tuple[RunRecord | None, str | None]:
    try:
        return check_step(step_folder), None
    except DamageError as damage:
        return None, str(damage)


def _described(record: RunRecord) -> Json:
    config = record.config
    student = config.distillation.objective != "none"
    kind = "a converted model" if record.data == NO_DATA else "a few-step student" if student else "a trained model"
    return {
        "kind": kind,
        "planned_steps": config.train.steps,
        "train_seconds": record.train_seconds,
        "parameters": parameter_count(config.model),
        "classes": config.model.num_classes,
        "class_names": len(record.class_names),
    }


def _scores(folder: Path) -> list[Json]:
    """The scores in the certificates of a run, in the order of the steps; files that are none are left out."""
    found: list[Json] = []
    for path in folder.glob("*.json") if folder.is_dir() else ():
        try:
            certificate = read_json_object(path)
            protocol, scores = certificate["protocol"]["name"], certificate["scores"]
            numbers = {name: value for name, value in scores.items() if value is None or is_number(value)}
            entry = {"step": int(path.stem), "protocol": protocol, "num_samples": certificate["num_samples"]}
            found.append(entry | {"scores": numbers, "date": certificate["date"]})
        except (JsonError, OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return sorted(found, key=lambda entry: entry["step"])


def _metrics(path: Path) -> Json:
    last = last_metrics(path) if path.exists() else {}
    return {name: {"step": step, "value": value} for name, (step, value) in sorted(last.items())}


def _bytes(folder: Path) -> int:
    """The size of all files below a folder that a trainer may be changing."""
    return sum(files_below(folder).values())


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


def _time(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
