import os

import numpy as np
import pytest

from transdiff_jax.convert.unused_tensors import UNUSED_FILE, load_unused, save_unused
from transdiff_jax.errors import UserError


def test_there_and_back(tmp_path):
    assert load_unused(tmp_path, "model") == {}
    save_unused(tmp_path, {"model/a.b": np.arange(3), "ema/a.b": np.zeros(2)})
    (name,) = load_unused(tmp_path, "model")
    assert name == "a.b"
    np.testing.assert_array_equal(load_unused(tmp_path, "model")["a.b"], np.arange(3))


def test_a_damaged_file_is_one_line(tmp_path):
    save_unused(tmp_path, {"model/a": np.arange(300)})
    content = bytearray((tmp_path / UNUSED_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / UNUSED_FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"unused_tensors\.npz cannot be read \(Bad CRC"):
        load_unused(tmp_path, "model")
    (tmp_path / UNUSED_FILE).unlink()
    os.mkfifo(tmp_path / UNUSED_FILE)
    with pytest.raises(UserError, match="cannot be read"):
        load_unused(tmp_path, "model")
