"""A PostgreSQL server of one test session: on a Unix socket alone, by an ordinary user, with nothing synced."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import find, missing

START_S = 60


def _program(name: str) -> str:
    """Debian keeps the server's programs off PATH, by version."""
    found = find(name) or next(
        (str(each) for each in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    if found is None:
        missing(f"{name} is missing: install the package postgresql, or run scripts/test")
    return os.path.realpath(found)


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server, and yield the address of its database."""
    server = _program("postgres")
    initdb = os.path.join(os.path.dirname(server), "initdb")
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")  # a socket's name is short
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:  # which the server refuses
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = os.path.join(folder, "data")
    try:
        subprocess.run(
            [initdb, "-D", data, "-U", "blockwright", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"],
            check=True,
            capture_output=True,
            cwd=folder,
            **as_user,
        )
        with open(os.path.join(folder, "log"), "wb") as log:
            process = subprocess.Popen(
                [server, "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
                stdout=log,
                stderr=log,
                cwd=folder,
                **as_user,
            )
        try:
            yield _ready(process, folder)
        finally:
            process.terminate()  # waits for clients
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder)


def _ready(process: subprocess.Popen[bytes], folder: str) -> str:
    import psycopg

    address = f"postgresql://blockwright@/postgres?host={folder}"
    end = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(address).close()
            return address
        except psycopg.OperationalError:
            with open(os.path.join(folder, "log"), encoding="utf-8") as log:
                assert process.poll() is None, log.read()
            assert time.monotonic() < end
            time.sleep(0.05)
