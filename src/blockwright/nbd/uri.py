"""Addresses of exports, as doc/uri.md of the NBD project has them.

``nbd://host[:port]/export``, ``nbds://…`` with TLS, ``nbd+unix:///export?socket=PATH``, ``nbds+unix:///…``,
``nbd+vsock://cid[:port]/export`` (libnbd's), ``nbds+vsock://…``.

Knows: how an address is written and read. Refuses to know: how it is dialled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from blockwright.errors import UsageError
from blockwright.nbd.wire import MAX_STRING, PORT

SCHEMES: Final = ("nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock", "nbds+vsock")
TLS_TYPES: Final = ("anon", "x509", "psk")
_TLS_KEYS: Final = ("type", "hostname", "verify-peer", "certificates", "username", "psk-file")
_KEYS: Final = {"socket", *(f"tls-{each}" for each in _TLS_KEYS)}
_MAX_VSOCK: Final = (1 << 32) - 1


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
        export = quote(self.export, safe="/")
        if self.transport == "unix":
            return f"{scheme}:///{export}?socket={quote(self.path, safe='/')}"
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        return f"{scheme}://{host}" + ("" if self.port == PORT else f":{self.port}") + f"/{export}"


def is_nbd_uri(text: str) -> bool:
    """Whether ``text`` begins as an address of an export does."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def parse_uri(text: str) -> NbdUri:
    """Return the address that ``text`` is. Raises UsageError for what doc/uri.md does not allow, naming the part."""
    scheme = text.partition("://")[0]
    if scheme not in SCHEMES or "://" not in text:
        raise UsageError(f"{text[:200]}: expected one of {', '.join(f'{each}://' for each in SCHEMES)}")
    try:
        parts = urlsplit(text, allow_fragments=False)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{text[:200]}: is no address: {error}") from None
    secure, _, transport = scheme.partition("+")
    query = _query(text, parts.query)
    export = unquote(parts.path.removeprefix("/"))
    if len(export.encode("utf-8", "surrogateescape")) > MAX_STRING:
        raise UsageError(f"{text[:200]}: expected a name of at most {MAX_STRING} bytes")
    transport = transport or "tcp"
    if transport == "unix":
        if parts.netloc or "socket" not in query:
            raise UsageError(f"{text[:200]}: expected no host and a socket: {scheme}:///EXPORT?socket=PATH")
    elif "socket" in query:
        raise UsageError(f"{text[:200]}: a socket goes with {secure}+unix")
    host = unquote(parts.hostname or "")
    if transport == "tcp" and not host:
        raise UsageError(f"{text[:200]}: expected a host")
    if transport == "vsock" and not (host.isdecimal() and int(host) <= _MAX_VSOCK):
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


def _query(text: str, query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KEYS:
            raise UsageError(f"{text[:200]}: expected one of {', '.join(sorted(_KEYS))}, found the key {key!r}")
        if key in found:
            raise UsageError(f"{text[:200]}: names {key} twice")
        found[key] = value
    if found.get("tls-type", "x509") not in TLS_TYPES:
        raise UsageError(f"{text[:200]}: expected tls-type to be one of {', '.join(TLS_TYPES)}")
    if found.get("tls-verify-peer", "1") not in ("0", "1", "true", "false"):
        raise UsageError(f"{text[:200]}: expected tls-verify-peer to be 0 or 1")
    return found
