"""Runs jobs of several processes, started as a user starts them."""

import re
import subprocess
import time

from tests.support.commands import ROOT, environment
from tests.support.events import read_events

PATIENCE = 600  # seconds until a test gives up, even on a slow machine


def cluster(count, arguments):
    return [str(ROOT / "launch" / "local_cluster.sh"), str(count), "--", *arguments]


class Job:
    """A running job, with its output in a file."""

    def __init__(self, folder, count, arguments, **variables):
        self.log = folder / f"log-{time.monotonic_ns()}"
        self.module = arguments[2]  # after the interpreter and -m
        with self.log.open("w") as log:
            self.launcher = subprocess.Popen(
                cluster(count, arguments), cwd=ROOT, env=environment() | variables, stdout=log, stderr=subprocess.STDOUT
            )

    def text(self):
        return self.log.read_text()

    def processes(self):
        """The ids of the job's processes, in the order of their numbers."""
        listed = subprocess.run(
            ["ps", "--ppid", str(self.launcher.pid), "-o", "pid=,args="], capture_output=True, text=True
        ).stdout
        return sorted(int(line.split()[0]) for line in listed.splitlines() if self.module in line)

    def wait_for(self, pattern):
        self.wait_until(lambda: re.search(pattern, self.text()))

    def wait_until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.launcher.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)

    def end(self):
        try:
            return self.launcher.wait(PATIENCE)
        finally:
            for process in self.processes():
                subprocess.run(["kill", "-KILL", str(process)])
            self.launcher.kill()


def finish(folder, count, arguments, **variables):
    job = Job(folder, count, arguments, **variables)
    assert job.end() == 0, job.text()
    return job.text()


def pictures(workdir):
    (events,) = workdir.glob("events.*")
    values = [value for event in read_events(events) for value in event.summary.value]
    return [value.image.encoded_image_string for value in values if value.tag == "samples"]
