"""The name of a container image in a registry, as people write it.

Knows: spelling. Refuses to know: registries. Source: OCI distribution-spec 1.1, "Pulling manifests".
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from blockwright.errors import UsageError

SCHEME: Final = "docker://"
"""What a reference begins with."""
REGISTRY: Final = "BLOCKWRIGHT_REGISTRY"
"""The variable that names the registry of references without one."""

_REFERENCE: Final = re.compile(
    r"(?P<name>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))?"
)
_TRANSPORT: Final = re.compile(r"(?:oci|oci-archive|docker-archive):(?P<path>[^:]+)(?::(?P<tag>.+))?", re.DOTALL)
"""How other programs write what is not in a registry."""
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_MAX: Final = 512


@dataclass(frozen=True, slots=True)
class Reference:
    """An image: the registry's ``host`` (with its port), the repository's ``name``, and a tag or a digest."""

    host: str
    name: str
    tag: str | None
    digest: str | None

    @property
    def version(self) -> str:
        """What the manifest is asked for by: the digest where there is one."""
        return self.digest or self.tag or "latest"

    @property
    def hostname(self) -> str:
        """The host without its port."""
        return re.sub(r":[0-9]+\Z", "", self.host)

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}/{self.name}{'@' if self.digest else ':'}{self.version}"


def is_loopback(hostname: str) -> bool:
    """Return whether a host, without a port, is this machine by its name alone: no name that only begins so is."""
    if hostname.lower() == "localhost":
        return True
    try:
        return ip_address(hostname.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def is_reference(text: str) -> bool:
    """Return whether the text is meant as a reference."""
    return text.startswith(SCHEME)


def meant(text: str, instead: str = "") -> str:
    """Return how to write what ``text``, found nowhere, was perhaps meant to be; nothing if none is known.

    Meant to go behind a message, after what is expected ``instead`` of it.
    """
    between = f": expected {instead}"
    found = _TRANSPORT.fullmatch(text)
    if found is not None:
        tag = f" --image {found['tag'][:128]}" if found["tag"] else ""
        return f"{between}{found['path'][:200]}{tag} for a container image in a layout or archive"
    path, _, tag = text.rpartition(":")
    if path and os.path.isfile(os.path.join(path, "oci-layout")):
        return f"{between}{path[:200]} --image {tag[:128]} for a container image in a layout or archive"
    first, slash, rest = text.partition("/")
    named = bool(slash) and not text.startswith(".") and _has_host(first) and _HOST.fullmatch(first) is not None
    name = _REFERENCE.fullmatch(rest if named else text) if len(text) <= _MAX else None
    if name is None or not (name["tag"] or name["digest"]):
        return ""
    if not named and "." in name["name"].rpartition("/")[2]:
        return ""  # disk.img:2
    host = "" if named or os.environ.get(REGISTRY) else "HOST/"
    return f"{between}{SCHEME}{host}{text} for a container image in a registry"


def _has_host(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost"


def parse_reference(text: str) -> Reference:
    """Return what ``docker://HOST/NAME[:TAG][@DIGEST]`` means; without a tag and a digest that is ``latest``.

    A first part without a dot or a port is a part of the name, as everywhere, and the registry is then that of
    BLOCKWRIGHT_REGISTRY. Raises UsageError for anything else.
    """
    shown = text[:200]
    rest = text.removeprefix(SCHEME)
    if len(rest) > _MAX:
        raise UsageError(f"{shown}…: expected a reference of at most {_MAX} characters, found {len(rest)}")
    first, slash, name = rest.partition("/")
    if not slash or not _has_host(first):
        first, name = os.environ.get(REGISTRY, ""), rest
        if not first:
            raise UsageError(
                f"{shown}: expected docker://HOST/NAME:TAG, found no host: name it, or set {REGISTRY} to that of "
                "short names"
            )
    found = _REFERENCE.fullmatch(name)
    if found is None or not _HOST.fullmatch(first):
        raise UsageError(
            f"{shown}: expected docker://HOST/NAME[:TAG][@sha256:… or @sha512:…], the name in lower case"
        )
    return Reference(first, found["name"], found["tag"], found["digest"])
