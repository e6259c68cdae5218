import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.parallel import shared_folders
from transdiff_jax.parallel.shared_folders import check_shared


class Job:
    """Runs the processes of a job as threads, with the exchanges between them."""

    def __init__(self, monkeypatch, folders):
        self.folders, self.errors = folders, [None] * len(folders)
        self.number, self.barrier = threading.local(), threading.Barrier(len(folders), timeout=60)
        self.sent = [None] * len(folders)
        monkeypatch.setattr(jax, "process_count", lambda: len(folders))
        monkeypatch.setattr(jax, "process_index", lambda: self.number.value)
        monkeypatch.setattr(shared_folders, "in_first_process", self.in_first)
        monkeypatch.setattr(shared_folders.multihost_utils, "process_allgather", self.gather)
        monkeypatch.setattr(shared_folders, "PATIENCE", 0.3)

    def gather(self, value):
        self.sent[self.number.value] = value
        self.barrier.wait()
        gathered = np.array(self.sent)
        self.barrier.wait()
        return gathered

    def in_first(self, action, size, dtype):
        result = action() if self.number.value == 0 else np.zeros(size, dtype)
        return self.gather(result)[0]

    def run(self):
        def process(number):
            self.number.value = number
            try:
                check_shared(self.folders[number], "workdir")
            except UserError as error:
                self.errors[number] = str(error)

        threads = [threading.Thread(target=process, args=[number]) for number in range(len(self.folders))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.errors


def test_one_folder_for_all(monkeypatch, tmp_path):
    folder = tmp_path / "run"
    assert Job(monkeypatch, [folder] * 3).run() == [None] * 3
    assert list(folder.iterdir()) == []


def test_another_folder_ends_all_in_one_line(monkeypatch, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    errors = Job(monkeypatch, [here, there, here]).run()
    assert errors[0] == (
        f"workdir={here} is not one folder for all processes of the job: 1 of 3 do not see what process 0 writes "
        "there; mount the same file system on all hosts, or name another folder"
    )
    assert errors[1:] == [errors[0].replace(str(here), str(there)), errors[0]]
    assert list(here.iterdir()) == []


def test_folders_in_a_bucket(monkeypatch, bucket):
    assert Job(monkeypatch, [bucket / "run"] * 3).run() == [None] * 3
    assert not bucket.is_dir()
    errors = Job(monkeypatch, [bucket / "run", bucket / "other"]).run()
    assert errors[0].startswith(f"workdir={bucket}/run is not one folder for all processes of the job: 1 of 2 do not")
    assert not bucket.is_dir()


@pytest.mark.parametrize("error", [PermissionError(13, "no permission"), UserError("no credentials")])
def test_a_process_that_cannot_look_does_not_leave_the_others_waiting(monkeypatch, tmp_path, caplog, error):
    job = Job(monkeypatch, [tmp_path / "run"] * 2)

    def exists(path, look=Path.exists):
        if job.number.value == 1:
            raise error
        return look(path)

    monkeypatch.setattr(Path, "exists", exists)
    assert all("1 of 2 do not see what process 0 writes there" in found for found in job.run())
    assert "no permission" in caplog.text or "no credentials" in caplog.text


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(shared_folders, "in_first_process", lambda action, size, dtype: action())
    with pytest.raises(UserError, match=r"^out=.*file cannot be used: "):
        check_shared(tmp_path / "file", "out")


def test_one_process_writes_nothing(tmp_path):
    check_shared(tmp_path / "run", "workdir")
    assert list(tmp_path.iterdir()) == []
