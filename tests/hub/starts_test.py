from pathlib import Path

import pytest

import transdiff_jax as td
from tests.support.configs import tiny_config
from transdiff_jax.distillation import student_run
from transdiff_jax.hub import starts
from transdiff_jax.training import loop


@pytest.mark.parametrize(("name", "module"), [("train", loop), ("distill", student_run)])
def test_a_model_of_the_hub_is_a_folder_where_a_run_starts(monkeypatch, name, module):
    calls = []
    monkeypatch.setattr(starts, "local_run", lambda value, field: Path("/models") / value.rpartition("/")[2])
    monkeypatch.setattr(module, name, lambda config, *rest: calls.append((config.train.init_from, *rest)))
    start = getattr(td, name)
    for origin in ("hf://someone/model", "transdiff-b", "runs/mine", ""):
        start(tiny_config(train={"init_from": origin}), "workdir")
    assert [call[0] for call in calls] == ["/models/model", "/models/transdiff-b", "runs/mine", ""]
    assert {call[1:] for call in calls} == {("workdir", None)}
