import math

import pytest

from tests.support.configs import tiny_config
from transdiff_jax.config import Config, make_config
from transdiff_jax.config.ranges import RANGES, Range, check_range
from transdiff_jax.errors import UserError

# They have a check of their own: two values, two times, and what the devices allow.
ELSEWHERE = {"model.attention_dropout", "data.image_channels", "sampling.guidance_interval"}


def numbers(values, prefix=""):
    """Paths of all fields that hold numbers, and whether they hold several."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{name}.")
        elif type(value) in (int, float):
            yield f"{prefix}{name}", False
        elif isinstance(value, tuple) and not any(isinstance(item, str) for item in value):
            yield f"{prefix}{name}", True


FIELDS = [field for field in numbers(Config().to_dict()) if not field[0].startswith("mesh.")]


def test_every_number_of_a_configuration_has_a_range():
    assert RANGES.keys() | ELSEWHERE == {path for path, _ in FIELDS}
    assert all(math.isfinite(end) for allowed in RANGES.values() for end in allowed[:2])


@pytest.mark.parametrize(("path", "several"), [field for field in FIELDS if field[0] in RANGES])
def test_a_number_beyond_its_range_is_one_line_with_name_value_and_range(path, several):
    values = tiny_config().to_dict()
    *section, name = path.split(".")
    holder = values[section[0]] if section else values
    for beyond in (10**40, 10**300, 10**5000):
        kind = type(holder[name][0] if several and holder[name] else holder[name])
        holder[name] = (beyond,) if several else beyond
        with pytest.raises(UserError, match=rf"^config\.{path}") as caught:
            make_config(values)
        text = str(caught.value)
        assert "\n" not in text
        if beyond == 10**40:
            shown = repr(float(beyond)) if kind is float else str(beyond)
            assert shown in text
            assert f"must be {RANGES[path]}" in text


@pytest.mark.parametrize(
    ("allowed", "text", "inside", "outside"),
    [
        (Range(1, 9), "at least 1 and at most 9", (1, 9), (0, 10, math.nan, -math.inf)),
        (Range(0, 1, high_open=True), "at least 0 and below 1", (0, 0.99), (-0.1, 1)),
        (Range(0, 1, low_open=True), "above 0 and at most 1", (0.01, 1), (0, 1.1)),
    ],
)
def test_ends(allowed, text, inside, outside):
    for value in inside:
        check_range(f"x={value}", value, allowed)
    for value in outside:
        with pytest.raises(UserError, match=f"^x={value} must be {text}$"):
            check_range(f"x={value}", value, allowed)


def test_a_sequence_that_no_attention_can_hold_is_one_line():
    with pytest.raises(UserError, match="= 65539 tokens, which must be at most 32768"):
        tiny_config(model={"tokens_per_image": 2**16})
