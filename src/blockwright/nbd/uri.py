"""Addresses of exports, as doc/uri.md of the NBD project has them.

``nbd://host[:port]/export``, ``nbds://…`` with TLS, ``nbd+unix:///export?socket=PATH``, ``nbds+unix:///…``,
``nbd+vsock://cid[:port]/export`` (libnbd's), ``nbds+vsock://…``.

Knows: how an address is written and read. Refuses to know: how it is dialled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from blockwright.errors import UsageError
from blockwright.nbd.wire import MAX_STRING, PORT, is_string

SCHEMES: Final = ("nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock", "nbds+vsock")
TLS_TYPES: Final = ("anon", "x509", "psk")
_TLS_KEYS: Final = ("type", "hostname", "verify-peer", "certificates", "username", "psk-file")
_KEYS: Final = {"socket", *(f"tls-{each}" for each in _TLS_KEYS)}
_CID: Final = re.compile(r"[0-9]{1,10}")
_MAX_VSOCK: Final = (1 << 32) - 1
_STRIPPED: Final = "\t\n\r"
"""What ``urlsplit`` takes out without a word, so that the address would be another one."""


@dataclass(frozen=True, slots=True)
class NbdUri:
    """Where an export is.

    ``transport`` is ``tcp``, ``unix`` or ``vsock``; ``host`` a name or address, or a decimal CID; ``path`` the Unix
    socket. ``export`` may be empty, which asks for the default. ``tls`` is required where it is true: such an address
    never speaks in the clear. ``certificates`` is a directory with ca-cert.pem, client-cert.pem, client-key.pem.
    """

    transport: str
    export: str = ""
    tls: bool = False
    host: str = ""
    port: int = PORT
    path: str = ""
    tls_type: str = "x509"
    tls_hostname: str | None = None
    verify_peer: bool = True
    certificates: str | None = None
    username: str | None = None
    psk_file: str | None = None

    @property
    def expected_host(self) -> str | None:
        """The name that the server's certificate must carry; None where nobody can know one."""
        return self.tls_hostname or (self.host if self.transport == "tcp" else None)

    def __str__(self) -> str:
        scheme = ("nbds" if self.tls else "nbd") + ("" if self.transport == "tcp" else f"+{self.transport}")
        export = _quoted(self.export)
        if self.transport == "unix":
            return f"{scheme}:///{export}?socket={_quoted(self.path)}"
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        return f"{scheme}://{host}" + ("" if self.port == PORT else f":{self.port}") + f"/{export}"


def is_nbd_uri(text: str) -> bool:
    """Whether ``text`` begins as an address of an export does."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def parse_uri(text: str) -> NbdUri:
    """Return the address that ``text`` is. Raises UsageError for what doc/uri.md does not allow, naming the part.

    A path may have any bytes but NUL, spelled ``%ff`` where they are no text, and comes as ``os.fsdecode`` has it; a
    plus sign is one.
    """
    scheme = text.partition("://")[0]
    if scheme not in SCHEMES or "://" not in text:
        raise UsageError(f"{text[:200]}: expected one of {', '.join(f'{each}://' for each in SCHEMES)}")
    if any(each in text for each in _STRIPPED):
        raise UsageError(f"{text[:200]}: expected tabs and ends of lines as %09, %0A and %0D")
    try:
        parts = urlsplit(text, allow_fragments=False)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{text[:200]}: is no address: {error}") from None
    secure, _, transport = scheme.partition("+")
    query = _query(text, parts.query)
    export = _unquoted(parts.path.removeprefix("/"))
    if not is_string(export):
        raise UsageError(f"{text[:200]}: expected a name of at most {MAX_STRING} bytes of UTF-8 without NUL")
    transport = transport or "tcp"
    if transport == "unix":
        if parts.netloc or not query.get("socket"):
            raise UsageError(f"{text[:200]}: expected no host and a socket: {scheme}:///EXPORT?socket=PATH")
    elif "socket" in query:
        raise UsageError(f"{text[:200]}: a socket goes with {secure}+unix")
    host = unquote(parts.hostname or "")
    if transport == "tcp" and not _is_host(host):
        raise UsageError(f"{text[:200]}: expected a host")
    if transport == "vsock" and not (_CID.fullmatch(host) and int(host) <= _MAX_VSOCK):
        raise UsageError(f"{text[:200]}: expected a context id, a number up to {_MAX_VSOCK}, found {host!r}")
    return NbdUri(
        transport=transport,
        export=export,
        tls=secure == "nbds",
        host=host,
        port=PORT if port is None else port,
        path=query.get("socket", ""),
        tls_type=query.get("tls-type", "x509"),
        tls_hostname=query.get("tls-hostname"),
        verify_peer=query.get("tls-verify-peer", "1") in ("1", "true"),
        certificates=query.get("tls-certificates"),
        username=query.get("tls-username") or (unquote(parts.username) if parts.username else None),
        psk_file=query.get("tls-psk-file"),
    )


def _is_host(host: str) -> bool:
    """Whether a resolver can be asked for ``host``: Python's own takes no label that is empty or too long."""
    if "\0" in host:
        return False
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _query(text: str, query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in filter(None, query.split("&")):
        spelled, _, value = each.partition("=")
        key = unquote(spelled)
        if key not in _KEYS:
            raise UsageError(f"{text[:200]}: expected one of {', '.join(sorted(_KEYS))}, found the key {key[:64]!r}")
        if key in found:
            raise UsageError(f"{text[:200]}: names {key} twice")
        found[key] = _unquoted(value)
        if "\0" in found[key]:
            raise UsageError(f"{text[:200]}: expected {key} without a NUL")
    if found.get("tls-type", "x509") not in TLS_TYPES:
        raise UsageError(f"{text[:200]}: expected tls-type to be one of {', '.join(TLS_TYPES)}")
    if found.get("tls-verify-peer", "1") not in ("0", "1", "true", "false"):
        raise UsageError(f"{text[:200]}: expected tls-verify-peer to be 0 or 1")
    return found


def _quoted(text: str) -> str:
    return quote(text, safe="/", errors="surrogateescape")


def _unquoted(text: str) -> str:
    """Return the text, bytes that are no UTF-8 as ``os.fsdecode`` has them, spelled or as they came from a shell."""
    return unquote(text, errors="surrogateescape")
