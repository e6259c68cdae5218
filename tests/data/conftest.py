import pytest

from tests.support.configs import tiny_config
from transdiff_jax.data.sources.digits import prepare_digits


@pytest.fixture(scope="session")
def digits_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits")
    prepare_digits(str(directory))
    return directory


@pytest.fixture
def digits_config(digits_directory):
    """A tiny configuration that reads the prepared digits; takes what `tiny_config` takes."""

    def make(mrar=False, data=None, **sections):
        return tiny_config(mrar, data={"directory": str(digits_directory)} | (data or {}), **sections)

    return make
