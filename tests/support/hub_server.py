"""A small hub on loopback: it serves files by revision, takes commits, and records what it is asked."""

import base64
import contextlib
import functools
import hashlib
import http.server
import json
import threading
import urllib.parse

LFS = (".pth", ".safetensors")


class Hub:
    """The repositories of a hub, each a list of commits; a commit is a dictionary of files."""

    def __init__(self):
        self.repos, self.objects = {}, {}
        self.requests = []  # method and path
        self.bodies = []  # of requests that send one
        self.damaged = set()  # files that arrive with a flipped bit
        self.lost = set()  # files whose connection breaks half way
        self.url, self.stopped = "", False
        self.stop = lambda: None

    def add_commit(self, repo, files):
        """A commit with more files; returns its name."""
        commits = self.repos.setdefault(repo, [])
        name = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits.append((name, {**(commits[-1][1] if commits else {}), **files}))
        return name

    def files(self, repo, revision="main"):
        """The name and the files of a commit, or None."""
        commits = self.repos[repo]
        if revision == "main":
            return commits[-1]
        return next((commit for commit in commits if commit[0] == revision), None)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub, *arguments):
        self.hub = hub
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def _reply(self, status, body=b"", headers=(), size=None):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reply_json(self, value):
        self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.hub.stopped:
            self.close_connection = True
            return None
        self.hub.requests.append((self.command, self.path))
        repo, found, rest = urllib.parse.urlparse(self.path).path[1:].partition("/resolve/")
        revision, _, path = rest.partition("/")
        if not found or repo not in self.hub.repos:
            return self._reply(404, headers={"X-Error-Code": "RepoNotFound"})
        commit = self.hub.files(repo, revision)
        if commit is None:
            return self._reply(404, headers={"X-Error-Code": "RevisionNotFound"})
        name, files = commit
        content = files.get(urllib.parse.unquote(path))
        if content is None:
            return self._reply(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": name})
        headers = {"X-Repo-Commit": name, "ETag": f'"{git_sha1(content)}"'}
        if path.endswith(LFS):
            headers |= {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        size = len(content)
        if path in self.hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if path in self.hub.lost and self.command == "GET":
            content = content[: size // 2]
            self.close_connection = True
        return self._reply(200, content, headers, size)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urllib.parse.urlparse(self.path).path
        self.hub.requests.append((self.command, path))
        self.hub.bodies.append(body)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.hub.repos.setdefault(repo, [])
            self._reply_json({"url": f"{self.hub.url}/{repo}"})
        elif path == "/api/validate-yaml":
            self._reply_json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            modes = {True: "lfs", False: "regular"}
            files = [
                {"path": file["path"], "uploadMode": modes[file["path"].endswith(LFS)], "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._reply_json({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/upload/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._reply_json({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            repo = path.removeprefix("/api/models/").partition("/commit/")[0]
            name = self.hub.add_commit(repo, self._committed(body))
            url = f"{self.hub.url}/{repo}/commit/{name}"
            self._reply_json({"success": True, "commitOid": name, "commitUrl": url})
        else:
            self._reply(404)

    def do_PUT(self):
        self.hub.requests.append((self.command, self.path))
        content = self._body()
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.hub.objects[self.path.rpartition("/")[2]] = content
        self._reply(200)

    def _body(self):
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _committed(self, body):
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        return files


def git_sha1(content):
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@contextlib.contextmanager
def served(patch, cache):
    """Serves a hub to huggingface_hub in this process; `patch` is a pytest.MonkeyPatch, `cache` an empty folder."""
    from huggingface_hub import constants

    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, hub))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"

    def stop():
        hub.stopped = True  # connections that are open stay so
        server.shutdown()
        server.server_close()

    hub.stop = stop
    with patch.context() as context:
        context.setattr(constants, "ENDPOINT", hub.url)
        context.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        context.setattr(constants, "HF_HUB_CACHE", str(cache))
        context.setattr(constants, "HF_HUB_DISABLE_XET", True)
        context.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        yield hub
    stop()
