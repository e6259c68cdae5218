import dataclasses

import pytest

from tests.support.configs import tiny_config
from transdiff_jax.config import MeshConfig
from transdiff_jax.errors import UserError
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.sampling.reference_features import check_fits, reference_features

MODEL = tiny_config(mrar=True).model


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_classes", 5, "config.model.num_classes=5, but the images have 10"),
        ("latent_channels", 8, "config.model.latent_channels=8, but the images have 4"),
        ("latent_size", 8, "config.model.latent_size=8, but the images have 4"),
    ],
)
def test_models_that_do_not_fit(field, value, message):
    check_fits(MODEL, latent_size=4, latent_channels=4, num_classes=10)
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        check_fits(dataclasses.replace(MODEL, **{field: value}), latent_size=4, latent_channels=4, num_classes=10)


def test_a_one_step_model_has_no_references():
    with pytest.raises(UserError, match="need a run of MRAR"):
        reference_features(tiny_config().model, {}, make_mesh(MeshConfig()))
