import itertools

import pytest

from transdiff_jax.config import DataConfig, as_config
from transdiff_jax.data.read_ahead import IN_QUEUES, MOST_LATENTS, MOST_ROWS, read_ahead
from transdiff_jax.model.recipes import published_recipe

ROWS = (1, 2, 7, 8, 60, 64, 97, 256, 2048)


@pytest.mark.parametrize(("threads", "workers"), itertools.product((1, 4, 16), (0, 1, 8)))
def test_at_most_a_batch_is_ahead_but_every_thread_has_work(threads, workers):
    for rows in ROWS:
        plan = read_ahead(rows, DataConfig(read_threads=threads, workers=workers))
        assert rows % plan.chunk == 0
        assert plan.chunk <= MOST_ROWS
        assert plan.chunks >= threads
        busy = threads + IN_QUEUES * (workers > 0)
        assert plan.most_rows(workers) <= max(rows, max(1, workers) * busy)


def test_large_batches_are_read_in_large_chunks():
    assert read_ahead(2048, DataConfig(read_threads=4, workers=8)).chunk == MOST_ROWS
    assert read_ahead(64, DataConfig(read_threads=4)).chunk == MOST_ROWS
    assert read_ahead(256, DataConfig(source="latents:x", read_threads=4)).chunk == MOST_LATENTS
    assert read_ahead(60, DataConfig(read_threads=4)).chunk == 6
    assert read_ahead(64, DataConfig(read_threads=4, workers=8)).chunk == 1


def test_published_mrar_from_images_fits_eight_gigabytes_on_one_host():
    """A batch read ahead, one that is filled, one on its way, and one on CPU devices, as docs/data.md measures."""
    config = as_config(published_recipe("l", "mrar_256").to_dict())
    rows, data = config.train.batch_size, config.data
    row = config.model.num_images * data.image_size**2 * data.image_channels
    ahead = read_ahead(rows, data).most_rows(data.workers)
    assert ahead <= rows == 2048
    assert 1.2e9 + (ahead + 3 * rows) * row < 8e9
