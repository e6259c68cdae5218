"""The report of the digits demo: scores of both models, and pictures of their samples."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from transdiff_jax.checkpoints.weights import latest_record
from transdiff_jax.data.sources.digits import require_demo
from transdiff_jax.demo.figures import save_loss_curves, save_panels
from transdiff_jax.demo.judge import FEATURE_SPACE, DigitsJudge
from transdiff_jax.demo.students import Images, StudentScores, score_student
from transdiff_jax.errors import UserError
from transdiff_jax.generation.finished_set import read_finished
from transdiff_jax.generation.loading import load
from transdiff_jax.generation.sample_files import reference_path
from transdiff_jax.images.grids import grid
from transdiff_jax.images.png import load_png
from transdiff_jax.storage.files import Json, write_json
from transdiff_jax.training.metric_writers import METRICS_FILE, read_metrics

ONE_STEP, MRAR = "one_step", "mrar"
TITLES = {ONE_STEP: "1-step", MRAR: "MRAR"}
FILES = ("samples.png", "mrar_sequence.png", "loss.png", "report.json")
GRID_COLUMNS = 10
STUDENT_COLUMNS = 5  # beside three more columns for each model
SCALE = 6

Samples = tuple[Json, UInt8[np.ndarray, "n height width 1"]]  # the record of a sample set, and its images


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
    judge = DigitsJudge(records[ONE_STEP].config.data)
    report: Json = {}
    for name, (record, images) in sets.items():
        labels = np.array(record["settings"]["labels"])
        report[name] = {
            "class_agreement": judge.class_agreement(images, labels),
            "frechet": judge.frechet(images),
            "train_seconds": records[name].train_seconds,
            "sample_seconds": record["seconds"],
            "images_per_second": record["images_per_second"],
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
        name: _score_student(folder, name, judge, sets[name][0]) for name in TITLES if _student(folder, name).exists()
    }
    for name, scores in students.items():
        report[f"{name}_student"] = scores.student
        report.setdefault("teacher_ode", {})[name] = scores.teacher_ode
        report.setdefault("naive", {})[name] = scores.naive
    _draw(
        folder, sets, {name: scores.images for name, scores in students.items()}, records[MRAR].config.model.num_images
    )
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
    """The record and the images of a sample set."""
    finished = read_finished(folder)
    return finished.record, np.stack([load_png(folder / name, 1) for name in finished.digests])


def _draw(folder: Path, sets: dict[str, Samples], students: dict[str, dict[str, Images]], num_images: int) -> None:
    first = {
        name: _first_of_each_class(record["settings"]["labels"], GRID_COLUMNS) for name, (record, _) in sets.items()
    }
    digits = [str(digit) for digit in range(len(first[MRAR]))]
    panels = {}
    for name, indices in first.items():
        columns = indices[:, : STUDENT_COLUMNS if students else GRID_COLUMNS]
        pictures = {TITLES[name]: sets[name][1]}
        pictures |= {f"{TITLES[name]}, {_passes(number)}": made for number, made in students.get(name, {}).items()}
        panels |= {
            title: grid(images[columns.flatten()], len(columns), scale=SCALE) for title, images in pictures.items()
        }
    save_panels(folder / "samples.png", panels, digits)

    samples, shown = folder / "samples" / MRAR, first[MRAR][:, 0]
    panels = {}
    for number in range(1, num_images):
        earlier = np.stack([load_png(reference_path(samples, index, number), 1) for index in shown])
        panels[f"image {number}"] = grid(earlier, len(shown), scale=SCALE)
    panels[f"image {num_images}"] = grid(sets[MRAR][1][shown], len(shown), scale=SCALE)
    save_panels(folder / "mrar_sequence.png", panels, digits)

    curves = {TITLES[name]: read_metrics(folder / name / METRICS_FILE, "flow_loss") for name in TITLES}
    save_loss_curves(folder / "loss.png", curves)


def _first_of_each_class(labels: list[int], count: int) -> Int[np.ndarray, "classes count"]:
    """Indices of the first samples of each class."""
    rows = [np.flatnonzero(np.array(labels) == label)[:count] for label in sorted(set(labels))]
    if min(len(row) for row in rows) < count:
        raise UserError(f"the report needs at least {count} samples of each class: sample more")
    return np.stack(rows)
