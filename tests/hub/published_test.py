import math

import pytest

from tests.support.paths import ROOT
from transdiff_jax.convert.transdiff_names import name_table
from transdiff_jax.hub.published import PUBLISHED, REPO
from transdiff_jax.model.variants import SAMPLING, published_model

PAGE = (ROOT / "docs" / "hub.md").read_text()


def test_all_models_with_published_scores_have_a_name():
    assert {(model.size, model.kind) for model in PUBLISHED.values()} == set(SAMPLING)
    assert f"`{REPO}`" in PAGE


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_shows_each(name):
    model = PUBLISHED[name]
    shapes = name_table(published_model(model.size, model.kind)).our_shapes()
    assert f"| `{name}` | `{model.source.path}` | {sum(map(math.prod, shapes.values())):,} |" in PAGE
