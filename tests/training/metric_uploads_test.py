import time

import numpy as np
import pytest

from transdiff_jax.config import Config
from transdiff_jax.errors import UserError
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.training import metric_uploads
from transdiff_jax.training.metric_writers import read_metrics
from transdiff_jax.training.run_writer import make_writer


def test_metrics_are_uploaded_in_time_and_continued(bucket, monkeypatch):
    monkeypatch.setattr(metric_uploads, "UPLOAD_SECONDS", 1000)
    writer = make_writer(Config(), bucket)
    writer.write_scalars(1, {"loss": 3.0})
    assert not bucket.is_dir(), "not yet"
    writer.flush()
    assert read_metrics(bucket / "metrics.jsonl", "loss") == ([1], [3.0])
    writer.write_images(1, {"samples": np.zeros((4, 4, 1), np.uint8)})
    writer.write_scalars(2, {"loss": 2.0})
    folder = writer._uploads.folder
    writer.close()
    assert not folder.exists()

    time.sleep(1)  # event files are named by the second
    monkeypatch.setattr(metric_uploads, "UPLOAD_SECONDS", 0)
    writer = make_writer(Config(), bucket)
    writer.write_scalars(3, {"loss": 1.0})
    assert read_metrics(bucket / "metrics.jsonl", "loss") == ([1, 2, 3], [3.0, 2.0, 1.0])
    writer.close()
    assert len(list(bucket.glob("events.out.tfevents.*"))) == 2


def test_a_job_that_has_lost_the_run_uploads_nothing(bucket):
    def lost():
        raise UserError("taken over")

    writer = make_writer(Config(), bucket, lost)
    writer.write_scalars(1, {"loss": 3.0})
    with pytest.raises(UserError, match="taken over"):
        writer.close()
    assert not bucket.is_dir()


def test_an_upload_that_fails_is_tried_again_and_the_last_one_is_an_error(bucket, monkeypatch, caplog):
    def fail(path, source):
        raise OSError(5, "no route", str(path))

    writer = make_writer(Config(), bucket)
    monkeypatch.setattr(BucketPath, "upload", fail)
    writer.write_scalars(1, {"loss": 3.0})
    writer.flush()
    assert "metrics are not uploaded yet: gs://" in caplog.text
    with pytest.raises(UserError, match=r"could not be written \(no route\)"):
        writer.close()
