"""Tells the service manager how far we are, by the datagrams of sd_notify(3); without one it does nothing.

Knows: NOTIFY_SOCKET. Refuses to know: what is served.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress


def notify(*lines: str) -> bool:
    """Send the lines (``READY=1``) and say whether anybody was there to be told. Never raises."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if sys.platform == "win32" or path[:1] not in ("/", "@"):
        return False
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + path[1:] if path[0] == "@" else path)
        sock.sendall("\n".join(lines).encode())
        return True
    return False


def notify_ready(status: str) -> None:
    """Say that we serve."""
    notify("READY=1", f"STATUS={_one_line(status)}", f"MAINPID={os.getpid()}")


def notify_reloading() -> None:
    """Say that we read our configuration again; ``notify_ready`` ends it (Type=notify-reload)."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def notify_stopping() -> None:
    """Say that we are about to end."""
    notify("STOPPING=1")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
