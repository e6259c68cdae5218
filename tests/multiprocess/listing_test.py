"""Jobs of two processes that list a folder of images."""

import json
import shutil
import socket
import subprocess
import sys

from tests.support.commands import ROOT, environment
from tests.support.photos import write_folder


def test_one_process_lists_and_another_folder_is_seen_by_all(tmp_path):
    folder = write_folder(tmp_path / "images", count=2)
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "flower" / "001.png").unlink()
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.multiprocess.listing_worker"]
    jobs = [
        subprocess.Popen(
            [*command, *map(str, (process, port, tmp_path / "run", folder, other))],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
        )
        for process in range(2)
    ]
    try:
        # JAX prints a line before.
        first, second = (json.loads(job.communicate(timeout=120)[0].splitlines()[-1]) for job in jobs)
    finally:
        for job in jobs:
            job.kill()
    assert (first["scans"], second["scans"]) == (1, 0)
    assert first["classes"] == second["classes"] == {"china": 2, "flower": 2}
    assert first["names"] == second["names"]
    for record, place in ((first, folder), (second, other)):
        assert record["error"] == (
            f"config.data.source names the folder {place}: process 1 does not find in it what process 0 lists: give "
            "all processes one folder, or copies of it"
        )
