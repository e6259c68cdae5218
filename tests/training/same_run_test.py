import dataclasses
from pathlib import Path

import pytest

from tests.support.configs import tiny_config
from transdiff_jax.checkpoints.record import NO_DATA, RunRecord
from transdiff_jax.config import TokenizerConfig
from transdiff_jax.errors import UserError
from transdiff_jax.training.same_run import check_same_run, tokenizer_digest

FOLDER = Path("run/checkpoints")
PLACE = {"global_next_index": 8}


def with_weights(folder):
    return dataclasses.replace(tiny_config(), tokenizer=TokenizerConfig(kind="kl16", weights=str(folder)))


def weights(folder, content):
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    return folder


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("model", "width", 32, "config.model.width=16, not 32"),
        ("train", "ema_rates", (0.5,), r"config.train.ema_rates=\(0.9,\), not \(0.5,\)"),
        ("train", "only", "decoder", "config.train.only=all, not decoder"),
        ("tokenizer", "kind", "kl16", "config.tokenizer.kind=pixels, not kl16"),
        ("tokenizer", "patch", 4, "config.tokenizer.patch=2, not 4"),
        ("tokenizer", "dtype", "bfloat16", "config.tokenizer.dtype=float32, not bfloat16"),
    ],
)
def test_what_is_fixed_for_a_run(section, field, value, message):
    config = tiny_config()
    changed = dataclasses.replace(getattr(config, section), **{field: value})
    asked = dataclasses.replace(config, **{section: changed})
    with pytest.raises(UserError, match=f"was trained with {message}; choose another workdir or that value"):
        check_same_run(RunRecord(config, PLACE, 0.0), asked, FOLDER)


def test_other_settings_may_change_and_are_named(caplog):
    asked = tiny_config(train={"batch_size": 16}, model={"dropout": 0.1})
    check_same_run(RunRecord(tiny_config(), PLACE, 0.0), asked, FOLDER)
    assert "config.train.batch_size changed from 8 to 16" in caplog.text
    assert "config.model.dropout changed from 0.0 to 0.1" in caplog.text


def test_the_weights_of_the_tokenizer_may_move_but_not_change(tmp_path):
    first, other = weights(tmp_path / "first", "a"), weights(tmp_path / "other", "b")
    config = with_weights(first)
    record = RunRecord(config, PLACE, 0.0, tokenizer_sha256=tokenizer_digest(config))
    moved = first.rename(tmp_path / "moved")
    check_same_run(record, with_weights(moved), FOLDER)
    with pytest.raises(UserError, match=r"was trained with tokenizer weights of digest .*other has digest .*choose"):
        check_same_run(record, with_weights(other), FOLDER)


def test_a_record_of_version_0_1_names_only_the_folder_of_the_weights(tmp_path):
    first, other = weights(tmp_path / "first", "a"), weights(tmp_path / "other", "b")
    record = RunRecord(with_weights(first), PLACE, 0.0)
    check_same_run(record, with_weights(first), FOLDER)
    with pytest.raises(UserError, match="was trained with tokenizer weights of digest"):
        check_same_run(record, with_weights(other), FOLDER)
    first.rename(tmp_path / "gone")
    check_same_run(record, with_weights(other), FOLDER)


def test_a_tokenizer_without_weights_has_no_digest():
    assert tokenizer_digest(tiny_config()) == ""


def test_converted_weights_are_not_resumed():
    with pytest.raises(UserError, match="holds converted weights, which have no training state to resume"):
        check_same_run(RunRecord(tiny_config(), NO_DATA, 0.0), tiny_config(), FOLDER)
