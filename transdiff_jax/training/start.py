"""The start of a training job: what must fit first, and the state to continue from."""

from collections.abc import Sequence

from absl import logging
from jax.sharding import Mesh

from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.checkpoints.weights import load_weights
from transdiff_jax.config import Config
from transdiff_jax.data.pipeline import TrainingData
from transdiff_jax.errors import UserError
from transdiff_jax.model.needs import check_sampling_memory, check_training_memory
from transdiff_jax.model.params import Params, init_sharded_params
from transdiff_jax.parallel.mesh import check_batch
from transdiff_jax.storage.paths import location
from transdiff_jax.training.class_vectors import with_classes
from transdiff_jax.training.finetune import adapt_params
from transdiff_jax.training.same_run import check_same_run
from transdiff_jax.training.state import TrainState, abstract_state, create_state
from transdiff_jax.training.task import MakeTask, Task
from transdiff_jax.training.wandb_writer import require_wandb


def check_start(config: Config, mesh: Mesh) -> None:
    """Checks what needs no data and no checkpoint.

    Raises:
        UserError: batches do not fit the mesh or the memory, a logger is not installed, or `train.classes` has no run.
    """
    c = config.train
    name = "config.train.batch_size" + (" / config.train.accumulation" if c.accumulation > 1 else "")
    check_batch(c.batch_size // c.accumulation, mesh, name)
    check_training_memory(config, mesh)
    if c.sample_every or config.eval.every:
        check_batch(config.sampling.batch_size, mesh, "config.sampling.batch_size")
        check_sampling_memory(config, mesh)
    if c.classes != "same" and not c.init_from:
        raise UserError(
            f'config.train.classes="{c.classes}" says what to take from another run: name it in config.train.init_from'
            ', or set "same" to train from scratch'
        )
    if "wandb" in c.loggers:
        require_wandb()


def start(
    config: Config, mesh: Mesh, store: CheckpointStore, data: TrainingData, make_task: MakeTask
) -> tuple[Task, TrainState, float]:
    """The task, its state to continue from, and the seconds trained so far; moves `data` to the matching place.

    Args:
        config: of the run.
        mesh: for the state.
        store: of the run's checkpoints.
        data: of the run, at its beginning.
        make_task: as in `transdiff_jax.training.loop.run`.

    Raises:
        UserError: the newest checkpoint is of another run, the run in `train.init_from` does not fit, or what
            `make_task` raises.
    """
    step = store.newest_intact()
    if step is not None:
        record = store.read_record(step)
        check_same_run(record, config, store.folder)
        task = make_task(config, mesh, record.teacher)
        data.set_state(record.data)
        logging.info("resuming from the checkpoint of step %d in %s", step, store.folder)
        return task, store.read_state(step, abstract_state(config, mesh)), record.train_seconds
    task = make_task(config, mesh, None)
    return task, create_state(config, mesh, _first_params(config, mesh, task, data.class_names)), 0.0


def _first_params(config: Config, mesh: Mesh, task: Task, class_names: Sequence[str]) -> Params:
    params, origin = init_sharded_params(config.model, config.seed, mesh), config.train.init_from
    if not origin:
        return params
    workdir = location(origin, "config.train.init_from")
    weights = task.start or load_weights(workdir, mesh, kind=config.train.init_weights)
    logging.info("fine-tuning from step %d of %s", weights.step, workdir)
    source = with_classes(weights, class_names, config.train.classes, origin)
    return adapt_params(source, params, weights.config.model, origin)
