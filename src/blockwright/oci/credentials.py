"""Who we are to a registry: what podman's or docker's configuration says, and the answers to a registry's challenges.

Credentials are taken from ``auth.json`` of podman or ``config.json`` of docker, which are alike: in ``auths`` or by a
credential helper, the one program that is called. Nothing of them is ever in a message.

Knows: the configuration and the challenges. Refuses to know: requests. Sources: docker's ``config.json``,
containers-auth.json(5), the protocol of docker-credential-helpers, RFC 9110 section 11.6.1.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from blockwright.errors import Refused

_MAX_CONFIG: Final = 1 << 20
_HELPER: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HELPER_S: Final = 30
_IDENTITY: Final = "<token>"
_PAIR: Final = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|\Z)')


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and its secret; or, with no name, a token that stands for the user and buys others."""

    user: str
    secret: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r})"

    @property
    def is_token(self) -> bool:
        """Whether the secret is an identity token."""
        return not self.user

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks for: ``scheme`` in lower case, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def parse_challenge(header: str) -> Challenge | None:
    """Return the first challenge of ``WWW-Authenticate`` that is known, Bearer or Basic; None where there is none."""
    scheme, _, rest = header[:4096].strip().partition(" ")
    if scheme.lower() not in ("bearer", "basic"):
        return None
    found: dict[str, str] = {}
    position = 0
    rest = rest.strip()
    while match := _PAIR.match(rest, position):
        value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
        found.setdefault(match[1].lower(), value)
        position = match.end()
        while position < len(rest) and rest[position] == " ":
            position += 1
    return Challenge(scheme.lower(), found)


def find_credentials(host: str, name: str = "") -> Credentials | None:
    """Return what the configurations have for the registry and the repository ``name`` in it, None for nothing.

    Podman's file is asked before docker's, and alone where REGISTRY_AUTH_FILE names one. In it, what is said of a
    longer part of the name counts. A helper that is named for the host, or for all, is asked; that it has nothing
    means nothing, whatever else is there. Raises Refused where a configuration or a helper does not hold.
    """
    for path in _configurations():
        config = _read(path)
        helpers, auths = config.get("credHelpers"), config.get("auths")
        helper = helpers.get(host) if isinstance(helpers, dict) else None
        helper = helper or config.get("credsStore")
        if isinstance(helper, str) and helper:
            return _ask_helper(helper, host)
        for key in _keys(host, name):
            entry = auths.get(key) if isinstance(auths, dict) else None
            if isinstance(entry, dict):
                return _stored(entry, path)
    return None


def _configurations() -> list[str]:
    """Return the files that may say who we are, the first one first. Source: containers-auth.json(5)."""
    if alone := os.environ.get("REGISTRY_AUTH_FILE"):
        return [alone]
    docker = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    folders = [*([runtime] if runtime else []), config]
    return [*(os.path.join(each, "containers", "auth.json") for each in folders), os.path.join(docker, "config.json")]


def _keys(host: str, name: str) -> list[str]:
    """Return what an entry for the repository may be called, the most special first."""
    parts = name.split("/") if name else []
    named = ["/".join([host, *parts[:count]]) for count in range(len(parts), 0, -1)]
    return [*named, host, f"https://{host}", f"https://{host}/v1/", f"http://{host}"]


def _read(path: str) -> dict[str, Any]:
    """Return a configuration, an empty one where there is none. Raises Refused."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_CONFIG + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused(f"{path}: expected JSON of at most {_MAX_CONFIG} bytes") from None
    if not isinstance(config, dict):
        raise Refused(f"{path}: expected an object")
    return config


def _stored(entry: dict[str, Any], path: str) -> Credentials | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials("", token)
    auth = entry.get("auth")
    if isinstance(auth, str) and auth:
        try:
            user, colon, secret = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user, colon, secret = "", "", ""
        if not colon or not user:
            raise Refused(f"{path}: auths: auth: expected USER:SECRET in base64")
        return Credentials(user, secret.rstrip("\0"))
    name, password = entry.get("username"), entry.get("password")
    return Credentials(name, password) if isinstance(name, str) and name and isinstance(password, str) else None


def _ask_helper(helper: str, host: str) -> Credentials | None:
    """Have ``docker-credential-HELPER`` say who we are to the host."""
    name = f"docker-credential-{helper}"
    if not _HELPER.fullmatch(helper):
        raise Refused(f"credential helper: expected a name, found {helper[:64]!r}")
    try:
        done = subprocess.run(  # noqa: S603 - the user's own configuration names it, and no shell reads it
            [name, "get"], input=host.encode(), capture_output=True, timeout=_HELPER_S, check=False
        )
    except (FileNotFoundError, PermissionError):  # the second where PATH has a folder that is closed to us
        raise Refused(f"{name}: the credential helper of docker's configuration is not installed") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{name}: {type(error).__name__}") from None
    if done.returncode:
        if b"not found" in done.stdout + done.stderr:
            return None
        raise Refused(f"{name}: failed with exit code {done.returncode}")
    try:
        answer = json.loads(done.stdout[:_MAX_CONFIG])
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, RecursionError, KeyError, TypeError):
        user = secret = None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise Refused(f"{name}: expected JSON with Username and Secret")
    return Credentials("" if user == _IDENTITY else user, secret)
