"""How a server of Temporal is reached: address, namespace, TLS, and a key; from options, and from the environment.

The variables are those of Temporal's own tools. All that can be wrong with what was given is found here, before
anybody is contacted. An API key is never an argument, which others could see, and is never sent in the clear.

Knows: words, and files. Refuses to know: clients of Temporal, so whoever reads options imports none.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from blockwright.errors import UsageError
from blockwright.units import KiB, MiB

MAX_PEM: Final = MiB
"""Bytes of a file of certificates, or of a key."""
MAX_API_KEY: Final = 16 * KiB
"""Bytes of an API key: gRPC takes no longer headers."""

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}").fullmatch
_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}").fullmatch
_API_KEY: Final = re.compile(rb"[!-~]+").fullmatch
_SWITCH: Final = {"true": True, "1": True, "false": False, "0": False}
_UNREAD: Final = {
    "TEMPORAL_TLS_SERVER_CA_CERT_DATA": "TEMPORAL_TLS_SERVER_CA_CERT_PATH",
    "TEMPORAL_TLS_CLIENT_CERT_DATA": "TEMPORAL_TLS_CLIENT_CERT_PATH",
    "TEMPORAL_TLS_CLIENT_KEY_DATA": "TEMPORAL_TLS_CLIENT_KEY_PATH",
    "TEMPORAL_TLS_DISABLE_HOST_VERIFICATION": "TEMPORAL_TLS_SERVER_CA_CERT_PATH or TEMPORAL_TLS_SERVER_NAME",
}
"""Variables of Temporal's that are not taken, and would be missed, with what does in their place."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS, with certificates and the key in PEM. Without an authority those that the system trusts are.

    ``name`` is what the server's certificate is to be for, where that is not the address's host.
    """

    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A server, and how it is reached: in the clear without ``tls``."""

    address: str
    namespace: str = "default"
    tls: Tls | None = None
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Given:
    """What options said, None or False where they did not. Each stands before its variable of the environment."""

    address: str | None = None
    namespace: str | None = None
    tls: bool = False
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    name: str | None = None
    api_key_file: str | None = None


class _Word(NamedTuple):
    """A value, and what it was given by."""

    by: str
    value: str
    optional: bool
    """Whether an option gave it."""


def server_of(given: Given, environ: Mapping[str, str] = os.environ) -> Server:
    """Return what options and the environment name. Raises UsageError where it cannot be, or cannot be read."""

    def word(value: str | None, option: str, variable: str) -> _Word | None:
        if value is not None:
            return _Word(option, value, optional=True)
        return _Word(variable, environ[variable], optional=False) if environ.get(variable) else None

    for unread, instead in _UNREAD.items():
        if environ.get(unread) and _SWITCH.get(environ[unread].lower(), True):
            raise UsageError(f"{unread}: is not taken: expected {instead}")
    address = word(given.address, "--temporal", "TEMPORAL_ADDRESS")
    if address is None:
        raise UsageError("temporal: expected an address: --temporal HOST:PORT, or TEMPORAL_ADDRESS")
    if not _ADDRESS(address.value):
        raise UsageError(f"{address.by}: expected HOST:PORT, found {address.value[:64]!r}")
    namespace = word(given.namespace, "--namespace", "TEMPORAL_NAMESPACE")
    api_key = _api_key(given.api_key_file, environ.get("TEMPORAL_API_KEY", ""))
    words = (
        word(given.authority, "--temporal-tls-ca", "TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
        word(given.certificate, "--temporal-tls-cert", "TEMPORAL_TLS_CLIENT_CERT_PATH"),
        word(given.key, "--temporal-tls-key", "TEMPORAL_TLS_CLIENT_KEY_PATH"),
        word(given.name, "--temporal-tls-server-name", "TEMPORAL_TLS_SERVER_NAME"),
    )
    encrypted = _is_encrypted(_switch(given.tls, environ.get("TEMPORAL_TLS", "")), words, keyed=api_key is not None)
    return Server(
        address.value,
        "default" if namespace is None else namespace.value,
        _tls(*words) if encrypted else None,
        api_key,
    )


def _switch(option: bool, variable: str) -> bool | None:  # noqa: FBT001 - the option's value
    """Return whether TLS was asked for, None where nothing was said."""
    if option or not variable:
        return option or None
    if variable.lower() not in _SWITCH:
        raise UsageError(f"TEMPORAL_TLS: expected true or false, found {variable[:16]!r}")
    return _SWITCH[variable.lower()]


def _is_encrypted(asked: bool | None, words: Sequence[_Word | None], *, keyed: bool) -> bool:  # noqa: FBT001
    """Whether TLS is spoken. Who said how and did not say that is not connected in the clear."""
    said = [each for each in words if each is not None]
    if asked is False and keyed:
        raise UsageError("TEMPORAL_TLS: expected true: an API key is not sent in the clear")
    if asked is False and said:
        raise UsageError(f"{said[0].by}: is about TLS: expected TEMPORAL_TLS=true, found false")
    if asked is None and not keyed and said and all(each.optional for each in said):
        raise UsageError(f"{said[0].by}: is about TLS: expected --temporal-tls with it")
    return bool(asked or keyed or said)


def _tls(authority: _Word | None, certificate: _Word | None, key: _Word | None, name: _Word | None) -> Tls:
    if (certificate is None) is not (key is None):
        found = certificate or key
        assert found is not None, "one of them is there"
        raise UsageError(
            f"--temporal-tls-cert and --temporal-tls-key go together: expected both, found {found.by} alone"
        )
    if name is not None and not _NAME(name.value):
        raise UsageError(f"{name.by}: expected the name in a certificate, found {name.value[:64]!r}")
    trusted = None if authority is None else _read(authority)
    if authority is not None and trusted is not None:
        _check_authority(authority, trusted)
    shown = None if certificate is None else _read(certificate)
    own = None if key is None else _read(key)
    if certificate is not None and key is not None:
        _check_pair(certificate, key)
    return Tls(trusted, shown, own, None if name is None else name.value)


def _read(word: _Word) -> bytes:
    try:
        with open(word.value, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{word.by}: {word.value}: expected a file")
            data = file.read(MAX_PEM + 1)
    except OSError as error:
        raise UsageError(f"{word.by}: {word.value}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_PEM:
        raise UsageError(f"{word.by}: {word.value}: expected at most {MAX_PEM} bytes, found more")
    return data


def _check_authority(word: _Word, data: bytes) -> None:
    """Return where certificates can be read from the file's bytes."""
    import ssl

    try:
        ssl.create_default_context(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise UsageError(f"{word.by}: {word.value}: expected certificates in PEM") from None


def _check_pair(certificate: _Word, key: _Word) -> None:
    """Return where both can be read and belong together."""
    import ssl

    def no_password() -> str:
        raise UsageError(f"{key.by}: {key.value}: is encrypted: expected one that can be read without a password")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate.value, key.value, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(f"{key.by}: {key.value}: is not the key of {certificate.value}") from None
        raise UsageError(f"{certificate.value}, {key.value}: expected a certificate and its key in PEM") from None
    except OSError as error:  # changed since they were read
        raise UsageError(f"{certificate.value}, {key.value}: {(error.strerror or str(error)).lower()}") from None


def _api_key(path: str | None, variable: str) -> str | None:
    """Return the key, which no message tells."""
    by, data = "TEMPORAL_API_KEY", os.fsencode(variable)
    if path is not None:
        by = f"--temporal-api-key-file: {path}"
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_API_KEY + 1)
        except OSError as error:
            raise UsageError(f"{by}: {(error.strerror or str(error)).lower()}") from None
    elif not variable:
        return None
    if len(data) > MAX_API_KEY:
        raise UsageError(f"{by}: expected at most {MAX_API_KEY} bytes, found more")
    if not _API_KEY(data.strip()):
        raise UsageError(f"{by}: expected an API key: one word of ASCII")
    return data.strip().decode("ascii")
