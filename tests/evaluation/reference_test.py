import pickle

import numpy as np
import pytest

from tests.support.npz import header, write_npz
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.reference import read_images, read_reference, write_reference
from transdiff_jax.evaluation.statistics import fit_gaussian
from transdiff_jax.images.png import save_png
from transdiff_jax.storage.npz_files import NpzFile

WIDTH, SPATIAL = 5, 6
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 3, 3)).astype(np.uint8)


def gaussian(width):
    return fit_gaussian(np.random.default_rng(width).normal(size=(50, width)), "a")


def read(path):
    return read_reference(path, width=WIDTH, spatial_width=SPATIAL)


def statistics(**changes):
    mu, sigma = gaussian(WIDTH)
    return {"mu": mu, "sigma": sigma} | changes


def assert_same(a, b):
    for ours, theirs in zip(a, b, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_written_is_read(tmp_path):
    write_reference(tmp_path / "a.npz", gaussian(WIDTH), gaussian(SPATIAL), 50)
    found = read(tmp_path / "a.npz")
    assert_same(found.pooled, gaussian(WIDTH))
    assert_same(found.spatial, gaussian(SPATIAL))
    assert (found.num_images, found.fitted_images) == (0, 50)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_adms_files_with_images(tmp_path, save):
    save(tmp_path / "a.npz", arr_0=IMAGES, **statistics())
    found = read(tmp_path / "a.npz")
    assert_same(found.pooled, gaussian(WIDTH))
    assert (found.spatial, found.num_images, found.fitted_images) == (None, 7, None)
    pieces = list(read_images(tmp_path / "a.npz", 3))
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(pieces), IMAGES)


def test_a_set_of_samples_alone(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=IMAGES[..., :1])
    assert read(tmp_path / "a.npz") == (None, None, 7, None)
    assert next(read_images(tmp_path / "a.npz", 9)).shape == (7, 4, 3, 1)


@pytest.mark.parametrize("as_tensors", [False, True])
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_torch_fidelitys_cache(tmp_path, as_tensors, module):
    torch = pytest.importorskip("torch")
    content = statistics(mu=gaussian(WIDTH).mean.astype(np.float32))
    if as_tensors:
        content = {name: torch.from_numpy(array) for name, array in content.items()}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    # NumPy 1 and NumPy 2 use different names for the function in the pickle of an array.
    old, new = (f"{name}.multiarray".encode() for name in ("numpy._core", module))
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes().replace(b"c" + old, b"c" + new))
    assert as_tensors or f"c{module}.multiarray".encode() in (tmp_path / "a.pt").read_bytes()
    found = read(tmp_path / "a.pt")
    np.testing.assert_allclose(found.pooled.mean, gaussian(WIDTH).mean, rtol=1e-6)
    np.testing.assert_array_equal(found.pooled.covariance, gaussian(WIDTH).covariance)


def test_a_cache_that_would_run_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"mu": Evil()}, tmp_path / "a.pt", pickle_module=pickle)
    with pytest.raises(UserError, match=r"a\.pt is refused"):
        read(tmp_path / "a.pt")
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"b\.pt does not hold a dictionary of arrays"):
        read(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (statistics(mu=np.zeros(4)), r"mu has shape \(4,\); features of width 5 need \(5,\)"),
        (statistics(sigma=np.eye(4)), r"sigma has shape \(4, 4\); features of width 5 need \(5, 5\)"),
        (statistics(mu=np.full(5, np.nan)), "mu holds values that are not finite"),
        (statistics(sigma=np.triu(np.ones((5, 5)))), "sigma is not a covariance"),
        (statistics(sigma=-np.eye(5)), "sigma is not a covariance"),
        ({"mu": np.zeros(5)}, "is not complete: sigma is missing"),
        (statistics(mu_s=np.zeros(6)), "is not complete: sigma_s is missing"),
        (statistics(mu_s=np.zeros(5), sigma_s=np.eye(5)), r"mu_s has shape \(5,\); features of width 6"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.float32)}, r"arr_0 must be uint8 .*, but it is float32 \[2, 4, 4, 3\]"),
        ({"arr_0": np.zeros((2, 3, 4, 4), np.uint8)}, r"arr_0 must be uint8 \[n, height, width, 1 or 3\]"),
        ({"mu": np.array([None] * 5), "sigma": np.eye(5)}, "cannot be read"),
        (statistics(num_images=np.array([50])), "num_images must be an integer of at least 2"),
        (statistics(num_images=np.array(1)), "num_images must be an integer of at least 2"),
        ({"other": np.zeros(5)}, "holds no reference: it has neither mu and sigma nor images arr_0"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_one_line(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "a.npz")
    assert "a.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_images_that_are_declared_but_not_there(tmp_path):
    write_npz(tmp_path / "a.npz", arr_0=header((10**6, 1000, 1000, 1), "|u1") + bytes(8))
    with pytest.raises(UserError, match=r"a\.npz cannot be read as \.npz \(its shape .* not 8\)"):
        read(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"its images arr_0 cannot be read \(its shape"):
        next(read_images(tmp_path / "a.npz", 9))
    np.savez(tmp_path / "b.npz", arr_0=np.zeros((3, 0, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"b\.npz: its arr_0 must be uint8"):
        read(tmp_path / "b.npz")


def test_a_mistake_of_ours_is_no_damage(tmp_path, monkeypatch):
    """The checker of shapes raises a TypeError, which is a bug and keeps its traceback."""
    np.savez(tmp_path / "a.npz", **statistics())

    def mistake(file, name):
        raise TypeError("a shape that does not fit")

    monkeypatch.setattr(NpzFile, "__getitem__", mistake)
    with pytest.raises(TypeError, match="does not fit"):
        read(tmp_path / "a.npz")


def test_a_file_of_another_kind(tmp_path):
    save_png(tmp_path / "a.png", IMAGES[0])
    line = r"a\.png is not a reference: give a folder, a \.npz or a torch-fidelity file \(\.pt\)$"
    with pytest.raises(UserError, match=line):
        read(tmp_path / "a.png")


def test_absent_and_damaged_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", arr_0=IMAGES, **statistics())
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.npz cannot be read"):
            read(tmp_path / "a.npz")
    flipped = bytearray(whole)
    flipped[whole.index(IMAGES.tobytes()) + 5] ^= 1
    (tmp_path / "a.npz").write_bytes(flipped)
    with pytest.raises(UserError, match=r"its images arr_0 cannot be read"):
        list(read_images(tmp_path / "a.npz", 3))
    np.savez_compressed(tmp_path / "c.npz", arr_0=IMAGES)
    packed = bytearray((tmp_path / "c.npz").read_bytes())
    packed[150:200] = bytes(50)
    (tmp_path / "c.npz").write_bytes(packed)
    with pytest.raises(UserError, match=r"c\.npz.* cannot be read"):
        read(tmp_path / "c.npz")
        list(read_images(tmp_path / "c.npz", 3))
    np.savez(tmp_path / "b.npz", **statistics())
    with pytest.raises(UserError, match=r"b\.npz: its images arr_0 cannot be read"):
        list(read_images(tmp_path / "b.npz", 3))
