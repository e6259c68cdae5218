"""Scores of a model during its training."""

from collections.abc import Callable
from pathlib import Path

from absl import logging
from jax.sharding import Mesh

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import Config
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.certificate import Certificate
from transdiff_jax.evaluation.image_sets import ImageSet
from transdiff_jax.evaluation.inception.weights import load_inception
from transdiff_jax.evaluation.protocols import PROTOCOLS
from transdiff_jax.evaluation.reference_set import load_reference
from transdiff_jax.evaluation.sampled_images import sampled_images
from transdiff_jax.evaluation.scoring import certify
from transdiff_jax.evaluation.set_features import make_extractor
from transdiff_jax.generation.request import SampleRequest, balanced_labels
from transdiff_jax.model.params import Params
from transdiff_jax.parallel.processes import do_in_first_process, is_first
from transdiff_jax.sampling.sampler import Sampler
from transdiff_jax.storage.files import write_errors, write_json
from transdiff_jax.storage.paths import location

CERTIFICATES = "evaluation"


class TrainingScores:
    """Scores as `config.eval` says. Reads its files at the start: a missing one stops a run before it trains."""

    def __init__(self, config: Config, mesh: Mesh, workdir: Path) -> None:
        """Reads the network and the reference.

        Args:
            config: of the run.
            mesh: the devices.
            workdir: of the run; the certificate of each step goes into it, as evaluation/<step>.json.

        Raises:
            UserError: a file cannot be used.
        """
        self._config, self._mesh, self._folder = config, mesh, workdir / CERTIFICATES
        inception = load_inception(location(config.eval.inception, "config.eval.inception"))
        self._extractor = make_extractor(inception.params, mesh, None)
        self._inception = inception._replace(params={})  # the extractor holds them on the devices
        self._reference = load_reference(location(config.eval.reference, "config.eval.reference"), self._extractor)

    def __call__(self, step: int, params: Params, sampler: Sampler, stopped: Callable[[], bool]) -> dict[str, float]:
        """Scores samples of an average; every process calls this.

        A model that cannot be scored now, for instance because its samples are not finite, gets a warning and no
        scores; its training continues.

        Args:
            step: of training.
            params: the average.
            sampler: of the run's configuration.
            stopped: whether the job must end, which scores must not delay; the same in all processes.

        Returns:
            The scores by the names under which they are logged.

        Raises:
            UserError: the certificate cannot be written.
        """
        protocol = PROTOCOLS[self._config.eval.protocol]
        certificate, problem = None, ""
        try:
            images = self._images(step, params, sampler, stopped)
            certificate = certify(images, self._reference, self._extractor, self._inception, protocol, self._mesh)
        except UserError as error:
            problem = str(error)
        if stopped():
            certificate, problem = None, "the job is asked to end"
        if certificate is None:
            if is_first():  # all processes have the same problem
                logging.warning("step %d has no scores: %s", step, problem)
            return {}
        self._write(step, certificate)
        found = {
            f"eval/{protocol.name}/{score}": value
            for score, value in certificate["scores"].items()
            if value is not None
        }
        logging.info("step %d: %s", step, ", ".join(f"{score} {value:.5g}" for score, value in found.items()))
        return found

    def _images(self, step: int, params: Params, sampler: Sampler, stopped: Callable[[], bool]) -> ImageSet:
        c = self._config
        weights = Weights(c, params, f"ema {c.train.ema_rates[0]}", step, digest="")
        request = SampleRequest(tuple(balanced_labels(c.eval.num_samples, c.model.num_classes)), c.seed)
        return sampled_images(weights, request, self._mesh, f"samples of step {step}", sampler, stopped)

    def _write(self, step: int, certificate: Certificate) -> None:
        path = self._folder / f"{step}.json"

        def write() -> None:
            for warning in certificate["warnings"]:
                logging.warning("step %d: %s", step, warning)
            with write_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, certificate)

        do_in_first_process(write)
