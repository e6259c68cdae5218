import types

import pytest

from transdiff_jax.cli import app
from transdiff_jax.errors import UserError


def test_a_config_file_that_makes_no_fields_is_one_line():
    with pytest.raises(UserError, match=r"^--config: get_config\(\) must return the fields of a configuration, not 5$"):
        app.read_config(types.SimpleNamespace(value=5))


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_path_is_refused_by_the_name_of_its_flag(value):
    with pytest.raises(UserError, match=r"^--out= is empty: give it a path"):
        app.folder(types.SimpleNamespace(value=value, name="out"))
