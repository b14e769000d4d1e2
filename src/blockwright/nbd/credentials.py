"""What each end of TLS proves itself by, and holds the other to: certificates in a directory, or shared keys.

A directory has ``ca-cert.pem`` (the authority), ``ca-crl.pem`` (what it revoked, where there is one),
``server-cert.pem`` and ``server-key.pem``, ``client-cert.pem`` and ``client-key.pem``: the names that QEMU, nbdkit
and libnbd use. A file of shared keys has lines ``username:hexkey``, as psktool writes them.

Knows: those files, and the settings of OpenSSL that go with them. Refuses to know: streams.
"""

from __future__ import annotations

import os
import ssl
import sys
import threading
from typing import Final

from blockwright.errors import Corrupt, LimitExceeded, NotFound, NotSupported, UsageError
from blockwright.nbd.uri import NbdUri
from blockwright.units import MiB

MAX_PSK_FILE: Final = MiB
"""Bytes of a file of shared keys: some thousand users."""
MAX_PSK: Final = 256
"""Bytes of one shared key: the longest that OpenSSL takes is 512, and psktool makes 32."""

Path = str | os.PathLike[str]
_BY_KEY: Final = "PSK+HIGH:!SHA1"  # for TLS 1.2; the ciphers of 1.3 are for keys and certificates
_CLIENT_FOLDERS: Final = ("~/.pki/libnbd", "~/.config/pki/libnbd", "/etc/pki/libnbd")


class Credentials:
    """What one end begins TLS with: ``context`` for any number of handshakes, from any thread.

    With ``by_key`` nothing proves the peer but that it knows a shared key. ``user`` is whose key the peer asked to be
    proved by in this thread's last handshake; it says nothing of whether that key was used.
    """

    def __init__(self, context: ssl.SSLContext, *, by_key: bool = False) -> None:
        self.context = context
        self.by_key = by_key
        self._asked = threading.local()

    @property
    def user(self) -> str | None:
        """The user of the last handshake, or None."""
        found: str | None = getattr(self._asked, "user", None)
        return found

    @user.setter
    def user(self, user: str | None) -> None:
        self._asked.user = user


def server_credentials(certificates: Path | None, *, verify_clients: bool, psk_file: Path | None) -> Credentials:
    """Return a server's credentials: by certificate, or by shared keys.

    Not by both: OpenSSL settles the cipher first, and a key goes with some only, so that a client with a key would be
    answered by certificate.

    Raises NotFound and FormatError for the files, UsageError for settings that make no sense together,
    NotSupported for shared keys where this Python's ssl has none.
    """
    if (certificates is None) == (psk_file is None):
        found = "neither" if psk_file is None else "both"
        raise UsageError(f"TLS: expected a directory of certificates or a file of shared keys, found {found}")
    if verify_clients and certificates is None:
        raise UsageError("TLS: verifying clients needs a directory of certificates")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client may not make us shake hands again and again, and no session is ever resumed.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    credentials = Credentials(context, by_key=certificates is None)
    if certificates is not None:
        _load_own(context, certificates, "server")
        if verify_clients:
            _load_authority(context, certificates)
            context.verify_mode = ssl.CERT_REQUIRED
    if psk_file is not None:
        _take_keys(credentials, _keys(psk_file))
    return credentials


def client_credentials(uri: NbdUri) -> Credentials:
    """Return the credentials that an address names. Raises as ``server_credentials`` does.

    Without ``tls-certificates`` those are the first directory that libnbd has by default, and where there is none
    the authorities that the system trusts.
    """
    if uri.tls_type == "anon":
        raise NotSupported(f"{uri}: tls-type=anon: proves nobody to anybody: expected x509 or psk")
    if uri.tls_type == "psk":
        if uri.psk_file is None:
            raise UsageError(f"{uri}: tls-type=psk: expected a file of shared keys: tls-psk-file=PATH")
        keys, name = _keys(uri.psk_file), uri.username
        if name is None:
            raise UsageError(f"{uri}: tls-type=psk: expected a user: nbds://USER@HOST or tls-username=USER")
        if name not in keys:
            raise NotFound(f"{uri.psk_file}: has no key of the user {name!r}")
        return _client_by_key(name, keys[name])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = uri.verify_peer and uri.expected_host is not None
    context.verify_mode = ssl.CERT_REQUIRED if uri.verify_peer else ssl.CERT_NONE
    folder = uri.certificates or _client_folder()
    if folder is None:
        context.load_default_certs()
        return Credentials(context)
    if uri.verify_peer or os.path.exists(os.path.join(folder, "ca-cert.pem")):
        _load_authority(context, folder)
    if os.path.exists(os.path.join(folder, "client-cert.pem")):
        _load_own(context, folder, "client")
    return Credentials(context)


def _client_folder() -> str | None:
    folders = [os.path.expanduser(each) for each in _CLIENT_FOLDERS]
    return next((each for each in folders if os.path.exists(os.path.join(each, "ca-cert.pem"))), None)


# -- certificates -------------------------------------------------------------------------------------------------


def _load_own(context: ssl.SSLContext, folder: Path, side: str) -> None:
    """Load the certificate and the key of ``side``."""
    certificate = os.path.join(folder, f"{side}-cert.pem")
    key = os.path.join(folder, f"{side}-key.pem")
    for path in (certificate, key):
        if not os.path.exists(path):
            raise NotFound(f"{path}: no such file: expected the {side}'s certificate and its key")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise Corrupt(
            f"expected a certificate and its key in PEM, found: {said(error)}", source=certificate
        ) from None


def _load_authority(context: ssl.SSLContext, folder: Path) -> None:
    """Trust the authority in the folder, and nothing that it revoked."""
    path = os.path.join(folder, "ca-cert.pem")
    revoked = os.path.join(folder, "ca-crl.pem")
    try:
        context.load_verify_locations(path)
        if os.path.exists(revoked):
            path = revoked
            context.load_verify_locations(revoked)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file: expected the certificate of the authority") from None
    except ssl.SSLError as error:
        raise Corrupt(f"expected certificates in PEM, found: {said(error)}", source=path) from None


def _no_password() -> str:
    raise NotSupported("TLS: the key is encrypted: expected one that can be read without a password")


def said(error: ssl.SSLError) -> str:
    """Return the reason that OpenSSL gives, in its own words."""
    # Without a reason there is "[SSL] some words (_ssl.c:1020)".
    return (error.reason or str(error.args[-1]).partition("] ")[2].partition(" (")[0]).lower().replace("_", " ")


# -- shared keys --------------------------------------------------------------------------------------------------


def _keys(path: Path) -> dict[str, bytes]:
    """Return the keys in a file, by user. Raises NotFound, FormatError; NotSupported where they cannot be used."""
    if not getattr(ssl, "HAS_PSK", False):
        raise NotSupported("TLS: shared keys need Python 3.13 or newer, with an OpenSSL that has them")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PSK_FILE + 1)
    except FileNotFoundError:
        raise NotFound(
            f"{os.fspath(path)}: no such file: expected shared keys, username:hexkey in each line"
        ) from None
    return parse_keys(data, os.fspath(path))


def parse_keys(data: bytes, source: str) -> dict[str, bytes]:
    """Return the keys in a file's bytes, by user. Raises Corrupt and LimitExceeded, which never tell a key."""
    if len(data) > MAX_PSK_FILE:
        raise LimitExceeded(f"expected at most {MAX_PSK_FILE} bytes, found more", source=source)
    keys: dict[str, bytes] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, digits = line.strip().rpartition(b":")
        try:
            user, key = name.decode(), bytes.fromhex(digits.decode("ascii"))
        except ValueError:
            user, key = "", b""
        if not (user and colon and 0 < len(key) <= MAX_PSK) or "\0" in user:
            raise Corrupt(f"line {number}: expected username:hexkey, found something else", source=source)
        if user in keys:
            raise Corrupt(f"line {number}: expected each user once, found {user!r} again", source=source)
        keys[user] = key
    if not keys:
        raise Corrupt("expected username:hexkey in each line, found no key", source=source)
    return keys


def _take_keys(credentials: Credentials, keys: dict[str, bytes]) -> None:
    """Let clients prove who they are by these keys."""

    def key_of(user: str | None) -> bytes:
        credentials.user = user
        return keys.get(user or "", b"")

    if sys.version_info >= (3, 13):
        credentials.context.set_psk_server_callback(key_of)
        credentials.context.set_ciphers(_BY_KEY)


def _client_by_key(user: str, key: bytes) -> Credentials:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    # No authority is loaded, so a server that answers by certificate instead is not trusted.
    context.verify_mode = ssl.CERT_REQUIRED
    if sys.version_info >= (3, 13):
        context.set_psk_client_callback(lambda _hint: (user, key))
        context.set_ciphers(_BY_KEY)
    return Credentials(context, by_key=True)
