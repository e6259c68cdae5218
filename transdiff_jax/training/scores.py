"""Scores of a model while it is trained."""

from collections.abc import Callable
from pathlib import Path

from absl import logging
from jax.sharding import Mesh

from transdiff_jax.checkpoint import Weights
from transdiff_jax.config import Config
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.inception_weights import load_inception
from transdiff_jax.evaluation.protocols import PROTOCOLS
from transdiff_jax.evaluation.reference_set import load_reference
from transdiff_jax.evaluation.scores import make_scores
from transdiff_jax.evaluation.set_features import SetFeatures, collect, make_extractor
from transdiff_jax.generation import SampleRequest
from transdiff_jax.model.transdiff import Params
from transdiff_jax.processes import is_first
from transdiff_jax.sample_stream import sampled_images
from transdiff_jax.sampling import Sampler, balanced_labels, make_sampler


class TrainingScores:
    """What `config.eval` asks for; its files are read at once, so that a missing one stops a run before it trains."""

    def __init__(self, config: Config, mesh: Mesh) -> None:
        """Reads the network and the reference.

        Raises:
            UserError: a file that cannot be used.
        """
        self._config, self._mesh = config, mesh
        inception = load_inception(Path(config.eval.inception).expanduser())
        self._extractor = make_extractor(inception.params, mesh, None)
        self._reference = load_reference(Path(config.eval.reference).expanduser(), self._extractor)
        self._sampler: Sampler | None = None

    def __call__(self, step: int, params: Params, stopped: Callable[[], bool]) -> dict[str, float]:
        """Scores of samples of an average, by the names under which they are logged; every process calls this.

        A model that cannot be scored now (its samples are not finite, for instance) is told in a warning and has no
        scores: that is no reason to end its training.

        Args:
            step: of training.
            params: the average.
            stopped: whether the job is to end, which scores must not hold up; the same in all processes.
        """
        problem: object = None
        try:
            features = self._features(step, params, stopped)
        except UserError as error:
            problem = error
        if stopped():
            problem = "the job is asked to end"
        if problem is not None:
            if is_first():  # it is the same in all
                logging.warning("step %d has no scores: %s", step, problem)
            return {}
        protocol = self._config.eval.protocol
        scores = make_scores(features, self._reference, PROTOCOLS[protocol])
        found = {f"eval/{protocol}/{score}": value for score, value in scores.values.items() if value is not None}
        logging.info("step %d: %s", step, ", ".join(f"{score} {value:.5g}" for score, value in found.items()))
        return found

    def _features(self, step: int, params: Params, stopped: Callable[[], bool]) -> SetFeatures:
        if self._sampler is None:
            self._sampler = make_sampler(self._config, self._mesh)
        c, source = self._config, f"samples of step {step}"
        weights = Weights(c, params, f"ema {c.train.ema_rates[0]}", step, digest="")
        request = SampleRequest(tuple(balanced_labels(c.eval.num_samples, c.model)), c.seed)
        images = sampled_images(weights, request, self._mesh, source, self._sampler, stopped)
        return collect(self._extractor, images.batches(self._extractor.batch_size), source)
