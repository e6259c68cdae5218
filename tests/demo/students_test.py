import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.parameters import random_params
from tests.support.slow import slow
from tests.support.students import student_config
from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import MeshConfig
from transdiff_jax.demo.students import _jumps, score_student
from transdiff_jax.generation.trained_model import TrainedModel
from transdiff_jax.model.params import Params
from transdiff_jax.nn.patches import tokens_to_latent
from transdiff_jax.parallel.mesh import make_mesh

LABELS = np.arange(20) % 10


class Judge:
    """Stands in for the digits' judge."""

    def class_agreement(self, images, labels):
        assert images.shape == (len(labels), 8, 8, 1)
        return 0.5

    def frechet(self, images):
        return 2.0


def model(config, params: Params) -> TrainedModel:
    return TrainedModel(Weights(config, params, "ema 0.9", 1, "digest"), make_mesh(MeshConfig()))


@pytest.fixture(scope="module", params=[False, slow(True)], ids=["one_step", "mrar"])
def pair(request):
    """A teacher and a student, neither trained."""
    student = student_config(request.param, sampling={"batch_size": 24})
    teacher = tiny_config(request.param, sampling={"batch_size": 24, "steps": 3})
    params = random_params(student.model)
    decoder = {
        name: leaf for name, leaf in params["decoder"].items() if name.split("_")[0] not in ("length", "guidance")
    }
    return model(teacher, {**params, "decoder": decoder}), model(student, params)


def test_a_student_is_scored_beside_its_teacher(pair):
    scores = score_student(*pair, Judge(), LABELS)
    assert set(scores.student) == set(scores.naive) == set(scores.images) == {"1", "2", "4"}
    for figures in scores.student.values():
        assert set(figures) == {"class_agreement", "frechet", "rmse_to_teacher", "spread", "images_per_second"}
        assert figures["rmse_to_teacher"] > 0 and figures["spread"] > 0 and figures["images_per_second"] > 0
    assert scores.teacher_ode == {"class_agreement": 0.5, "frechet": 2.0}


def test_the_first_image_of_the_distance_is_the_samplers(pair):
    student = pair[1]
    c = student.config.model
    ends = jnp.zeros((20, c.num_images, c.latent_size, c.latent_size, c.latent_channels))
    made = jax.jit(lambda: _jumps(student, student.weights.params, jnp.asarray(LABELS), jnp.arange(20), ends, 2))()
    latents = tokens_to_latent(made[:, 0], c.latent_size)
    sampled = student.sample(LABELS, steps=2, all_images=True)[:, 0]
    difference = np.abs(student.decode(np.asarray(latents)).astype(int) - sampled)
    assert difference.max() <= 1, "a grey level"
