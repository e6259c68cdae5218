"""The report of the digits demo: scores of both models, and pictures of their samples."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from transdiff_jax.checkpoints.weights import latest_record
from transdiff_jax.data.sources.digits import require_demo
from transdiff_jax.demo.figures import save_loss_curves, save_panels
from transdiff_jax.demo.judge import FEATURE_SPACE, DigitsJudge
from transdiff_jax.demo.nearness import nearness
from transdiff_jax.demo.students import Images, StudentScores, score_student
from transdiff_jax.errors import UserError
from transdiff_jax.generation.finished_set import FinishedSet, read_finished, read_image
from transdiff_jax.generation.loading import load
from transdiff_jax.generation.sample_files import reference_path
from transdiff_jax.images.grids import grid
from transdiff_jax.storage.files import Json, write_json
from transdiff_jax.training.metric_writers import METRICS_FILE, read_metrics

ONE_STEP, MRAR = "one_step", "mrar"
TITLES = {ONE_STEP: "1-step", MRAR: "MRAR"}
FILES = ("samples.png", "mrar_sequence.png", "loss.png", "report.json")
GRID_COLUMNS = 10
STUDENT_COLUMNS = 5  # beside three more columns for each model
SCALE = 6

Samples = tuple[FinishedSet, UInt8[np.ndarray, "n height width 1"]]  # a sample set, and its images


def write_report(folder: Path) -> Json:
    """Scores the samples below `folder` and writes report.json, samples.png, mrar_sequence.png and loss.png there.

    `folder` holds the runs one_step and mrar, and their sample sets samples/one_step and samples/mrar (the latter
    with all images of each sequence). Where it also holds the few-step students one_step_student and mrar_student, they
    are sampled and scored too.

    Returns:
        The content of report.json.

    Raises:
        UserError: a run or a sample set is missing or not finished, or the extra `demo` is not installed.
    """
    require_demo("sklearn", "matplotlib")
    sets = {name: _read_samples(folder / "samples" / name) for name in TITLES}
    records = {name: latest_record(folder / name) for name in TITLES}
    sequences, classes = _sequences(*sets[MRAR], records[MRAR].config.model.num_images)
    pictures = _read_pictures(folder, sets, sequences)
    judge = DigitsJudge(records[ONE_STEP].config.data)  # takes seconds: all that may be damaged has been read
    report: Json = {}
    for name, (finished, images) in sets.items():
        record, labels = finished.record, np.array(finished.record["settings"]["labels"])
        report[name] = {
            "class_agreement": judge.class_agreement(images, labels),
            "frechet": judge.frechet(images),
            "train_seconds": records[name].train_seconds,
            "sample_seconds": record.get("seconds"),
            "images_per_second": record.get("images_per_second"),
            "samples": len(images),
            "guidance": record["settings"]["sampling"]["guidance"],
            "solver_steps": record["settings"]["sampling"]["steps"],
        }
    report["real"] = {
        "classifier_accuracy": judge.classifier_accuracy,
        "frechet_floor": judge.frechet_floor,
        "feature_space": FEATURE_SPACE,
    }
    students = {
        name: _score_student(folder, name, judge, sets[name][0].record)
        for name in TITLES
        if _student(folder, name).exists()
    }
    for name, scores in students.items():
        report[f"{name}_student"] = scores.student
        report.setdefault("teacher_ode", {})[name] = scores.teacher_ode
        report.setdefault("naive", {})[name] = scores.naive
    report["references"] = nearness(load(folder / MRAR), judge, sequences, classes)
    _draw(folder, sets, {name: scores.images for name, scores in students.items()}, pictures)
    write_json(folder / "report.json", report)
    return report


def _passes(number: str) -> str:
    return f"{number} pass" if number == "1" else f"{number} passes"


def _student(folder: Path, name: str) -> Path:
    return folder / f"{name}_student"


def _score_student(folder: Path, name: str, judge: DigitsJudge, record: Json) -> StudentScores:
    labels = np.array(record["settings"]["labels"])
    return score_student(load(folder / name), load(_student(folder, name)), judge, labels)


def _read_samples(folder: Path) -> Samples:
    """A sample set, and its images."""
    finished = read_finished(folder)
    return finished, np.stack([read_image(folder / name, digest, 1) for name, digest in finished.digests.items()])


class _Pictures(NamedTuple):
    """What the pictures show beside the samples."""

    first: dict[str, Int[np.ndarray, "classes count"]]  # indices of the first samples of each class, by run
    earlier: list[Images]  # earlier images of the first MRAR sequence of each class
    curves: dict[str, tuple[list[int], list[float]]]  # steps and losses by run


def _read_pictures(folder: Path, sets: dict[str, Samples], sequences: Images) -> _Pictures:
    first = {
        name: _first_of_each_class(finished.record["settings"]["labels"], GRID_COLUMNS)
        for name, (finished, _) in sets.items()
    }
    earlier = list(np.moveaxis(sequences[first[MRAR][:, 0], :-1], 1, 0))
    curves = {TITLES[name]: read_metrics(folder / name / METRICS_FILE, "flow_loss") for name in TITLES}
    return _Pictures(first, earlier, curves)


def _earlier(finished: FinishedSet, index: int, number: int) -> UInt8[np.ndarray, "height width 1"]:
    """An earlier image of a sample's sequence."""
    name = reference_path(Path(), index, number).as_posix()
    if name not in finished.earlier:
        raise UserError(f"{finished.folder} holds no {name}: sample it with --all_images")
    return read_image(finished.folder / name, finished.earlier[name], 1)


def _sequences(finished: FinishedSet, results: Images, num_images: int) -> tuple[Images, Int[np.ndarray, " n"]]:
    """All images of each sequence: uint8 [n, num_images, height, width, 1]; and the classes."""
    earlier = [
        np.stack([_earlier(finished, index, number) for index in range(len(results))])
        for number in range(1, num_images)
    ]
    return np.stack([*earlier, results], axis=1), np.array(finished.record["settings"]["labels"])


def _draw(folder: Path, sets: dict[str, Samples], students: dict[str, dict[str, Images]], pictures: _Pictures) -> None:
    first = pictures.first
    digits = [str(digit) for digit in range(len(first[MRAR]))]
    panels = {}
    for name, indices in first.items():
        columns = indices[:, : STUDENT_COLUMNS if students else GRID_COLUMNS]
        made_by = {TITLES[name]: sets[name][1]}
        made_by |= {f"{TITLES[name]}, {_passes(number)}": made for number, made in students.get(name, {}).items()}
        panels |= {
            title: grid(images[columns.flatten()], len(columns), scale=SCALE) for title, images in made_by.items()
        }
    save_panels(folder / "samples.png", panels, digits)

    shown = first[MRAR][:, 0]
    panels = {}
    for number, images in enumerate([*pictures.earlier, sets[MRAR][1][shown]], 1):
        panels[f"image {number}"] = grid(images, len(shown), scale=SCALE)
    save_panels(folder / "mrar_sequence.png", panels, digits)

    save_loss_curves(folder / "loss.png", pictures.curves)


def _first_of_each_class(labels: list[int], count: int) -> Int[np.ndarray, "classes count"]:
    """Indices of the first samples of each class."""
    rows = [np.flatnonzero(np.array(labels) == label)[:count] for label in sorted(set(labels))]
    if min(len(row) for row in rows) < count:
        raise UserError(f"the report needs at least {count} samples of each class: sample more")
    return np.stack(rows)
