"""The name of a container image in a registry, as people write it.

Knows: spelling. Refuses to know: registries. Source: OCI distribution-spec 1.1, "Pulling manifests".
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple

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
_REGISTRY_HOST: Final = re.compile(r"[A-Za-z0-9.-]+\.(?:aws|com|dev|io|net|org)|[A-Za-z0-9.-]+:[0-9]{1,5}")
"""What is likelier a host than a directory; a reference needs no tag behind it to be taken for one."""
_OF_DISKS: Final = frozenset(
    {"az", "file", "gs", "http", "https", "mem", "nbd", "nbds", "null", "s3", "volume", "vol", "volumes"}
)
"""What stands before the colon of addresses of disks, or is mistaken for it."""
_DEVICE: Final = re.compile(
    r"(?:dev/)?(?:disk|dm-|hd|loop|mmcblk|nbd|nvme|sd|sr|vd|xvd)[a-z]{0,2}[0-9]*(?:[np][0-9]+)*:[0-9]{1,3}"
)
"""What is likelier a partition of a device without its directory."""
_MAX: Final = 512
_MAX_PATH: Final = 200
"""Characters of a path that a message tells."""


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
    found = _written(text)
    return f": expected {instead}{found.name}{found.option} for a container image in a {found.kind}" if found else ""


def meant_as_disk(text: str) -> str:
    """Return how to have a disk of what ``text``, a file that is not there, was perhaps meant to be; or nothing.

    Meant to go behind a message. What is likelier an address of a disk, or a file of another name, is left alone.
    """
    scheme, colon, _ = text.partition(":")
    if (colon and (scheme in _OF_DISKS or len(scheme) == 1)) or len(text) > _MAX_PATH or os.path.lexists(text):
        return ""
    found = _written(text)
    if found is None or not all(map(_is_plain, filter(None, (found.name, found.tag)))):
        return ""
    folder, slash, _ = text.partition("/")
    in_folder = slash and os.path.lexists(folder)
    if found.kind == "registry" and (in_folder or _has_suffix(text) or _DEVICE.fullmatch(text)):
        return ""
    return f": if a container image is meant, 'build {found.name} -o disk.img{found.option}' makes a disk of it"


class _Written(NamedTuple):
    """What a container image is called as a source; ``kind`` is what it is in, and ``tag`` which one of several."""

    name: str
    kind: str
    tag: str = ""

    @property
    def option(self) -> str:
        return f" --image {self.tag}" if self.tag else ""


def _written(text: str) -> _Written | None:
    """Return how what ``text`` perhaps means is written here; None if nothing is known."""
    found = _TRANSPORT.fullmatch(text)
    if found is not None:
        return _Written(found["path"][:_MAX_PATH], "layout or archive", (found["tag"] or "")[:128])
    path, _, tag = text.rpartition(":")
    if path and os.path.isfile(os.path.join(path, "oci-layout")):
        return _Written(path[:_MAX_PATH], "layout or archive", tag[:128])
    first, slash, rest = text.partition("/")
    named = bool(slash) and not text.startswith(".") and _has_host(first) and _HOST.fullmatch(first) is not None
    name = _REFERENCE.fullmatch(rest if named else text) if len(text) <= _MAX else None
    if name is None:
        return None
    if not (name["tag"] or name["digest"]):
        if not named or not _REGISTRY_HOST.fullmatch(first) or _has_suffix(rest) or os.path.lexists(first):
            return None
    elif not named and _has_suffix(name["name"]):
        return None  # disk.img:2
    host = "" if named or os.environ.get(REGISTRY) else "HOST/"
    return _Written(f"{SCHEME}{host}{text}", "registry")


def _is_plain(text: str) -> bool:
    """Whether a shell, and a command, take the word for what it is."""
    return re.fullmatch(r"[A-Za-z0-9@%+=:,./_][A-Za-z0-9@%+=:,./_-]*", text) is not None


def _has_suffix(path: str) -> bool:
    """Whether the last name of a path, without what stands behind a colon or @, is one of a file with a suffix."""
    return "." in re.split("[:@]", path.rpartition("/")[2])[0]


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
