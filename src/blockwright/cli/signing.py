"""``--shim`` and ``--sign-command``: programs of a disk are signed by a command that the user names.

Knows: how the command is run, and how its failure is told. Refuses to know: keys, and what it signs with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from blockwright.boot.kinds import Secure
from blockwright.errors import BlockwrightError, NotFound, UsageError

_SHOWN: Final = 200
_IN, _OUT = "{in}", "{out}"


def secure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what Secure Boot asks for, and pass it as ``secure``."""

    @wraps(command)
    def with_secure(*, shim: bool, sign_command: str | None, **others: Any) -> Any:
        sign = None if sign_command is None else signer(sign_command)
        return command(secure=Secure(shim, sign), **others)

    click.option(
        "--sign-command",
        metavar="COMMAND",
        help="Sign each program for UEFI that has no signature: COMMAND reads the file {in} and makes {out}.",
    )(with_secure)
    click.option(
        "--shim", is_flag=True, help="Have a distribution's signed shim start the loader; with grub-efi a signed one."
    )(with_secure)
    return with_secure


def signer(text: str) -> Callable[[bytes, str], bytes]:
    """Return the hook that runs the command, without a shell, on files of its own.

    Raises UsageError for one that does not name both. The hook raises BlockwrightError where the command fails or
    makes nothing, NotFound where there is none.
    """
    import shlex

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--sign-command: {error}, found {text[:_SHOWN]!r}") from None
    for mark in (_IN, _OUT):
        if not any(mark in word for word in words[1:]):
            raise UsageError(f"--sign-command: expected {mark} among its arguments, found {text[:_SHOWN]!r}")

    def sign(program: bytes, name: str) -> bytes:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="blockwright-sign-") as folder:
            given, made = Path(folder, "program.efi"), Path(folder, "signed.efi")
            given.write_bytes(program)
            run = [word.replace(_IN, str(given)).replace(_OUT, str(made)) for word in words]
            _run(run, name)
            try:
                return made.read_bytes()
            except OSError:
                raise BlockwrightError(f"{name}: sign: {words[0]}: expected the file {_OUT}, found none") from None

    return sign


def _run(words: list[str], name: str) -> None:
    import shutil
    import subprocess

    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603 - what the user named
    except FileNotFoundError:
        raise NotFound(f"{name}: sign: {words[0]}: no such program") from None
    except OSError as error:
        # A folder of PATH that may not be looked into makes of what is nowhere what may not be run.
        if isinstance(error, PermissionError) and shutil.which(words[0], mode=os.F_OK) is None:
            raise NotFound(f"{name}: sign: {words[0]}: no such program") from None
        raise BlockwrightError(f"{name}: sign: {words[0]}: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        last = f": {said[-1][:_SHOWN]}" if said else ""
        raise BlockwrightError(f"{name}: sign: {words[0]}: exit {done.returncode}{last}")
