import jax

from tests.support.paths import GOLDEN
from transdiff_jax.verification.golden import GoldenFile
from transdiff_jax.verification.kl16_checks import check_autoencoder, make_tokenizer

FILE = GOLDEN / "kl16_a.npz"


def test_autoencoder():
    file = GoldenFile(FILE)
    checks = check_autoencoder(file, make_tokenizer(file))
    assert [check.name.split("/")[1] for check in checks] == ["moments", "mean", "std", "decoded"]
    assert not [check for check in checks if not check.ok]
    assert not file.unread()


def test_a_small_difference_in_one_convolution_is_found():
    file = GoldenFile(FILE)
    tokenizer = make_tokenizer(file)
    params = jax.tree.map(lambda x: x, tokenizer.params)
    for half in ("encoder", "decoder"):
        params[half]["middle"]["attention"]["value"]["kernel"] *= 1.001
    assert not any(check.ok for check in check_autoencoder(file, tokenizer.replace(params=params)))
