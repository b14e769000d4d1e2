"""Python itself, and the packages that parts of ours need, as they are installed or not.

Knows: which import belongs to which extra. Refuses to know: versions; the installer saw to these.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final, NamedTuple

from blockwright.doctor.host import Host
from blockwright.doctor.line import Line, State

_TOPIC: Final = "python"


class Extra(NamedTuple):
    """``module`` is what has to be there to import."""

    module: str
    gives: str


EXTRAS: Final = {
    "fsspec": Extra("fsspec", "blockwright:// addresses of files in images, for pandas, dask and their like"),
    "metrics": Extra(
        "opentelemetry", "fetch-and-create tells its steps to OpenTelemetry; serve --metrics needs nothing"
    ),
    "postgres": Extra("psycopg", "a catalogue of images in PostgreSQL: BLOCKWRIGHT_CATALOGUE"),
    "registry": Extra("urllib3", "docker:// sources: container images from registries"),
    "store": Extra("obstore", "s3://, gs://, az:// and http:// addresses"),
    "temporal": Extra("temporalio", "worker, and fetch-and-create --temporal"),
}
"""By name, as ``pip install 'blockwright[NAME]'`` has it."""


def lines(_host: Host) -> Iterator[Line]:
    """Yield Python, what makes it fast, and each extra."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Line(_TOPIC, "python", State.READY, f"{version} ({sys.executable})", "all that is done with images")
    yield _crc()
    for name, module, gives in (
        ("isal", "isal", "faster gzip; without it zlib"),
        ("zstd", "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd", "zstd: layers, qcow2"),
    ):
        yield _package(name, module, gives, f"pip install {module}")
    yield _keys()
    for name, extra in EXTRAS.items():
        yield _package(
            name, extra.module, extra.gives, f"pip install 'blockwright[{name}]' (pipx inject blockwright …)"
        )


def _package(name: str, module: str, gives: str, remedy: str) -> Line:
    if _is_there(module):
        return Line(_TOPIC, name, State.READY, f"{module} is installed", gives)
    return Line(_TOPIC, name, State.MISSING, f"{module} is not installed", gives, remedy)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _crc() -> Line:
    gives = "checksums of ext4, GPT and qcow2 at the speed of memory"
    try:
        import google_crc32c
    except ImportError:  # pragma: no cover - a dependency of the package
        return Line(_TOPIC, "crc32c", State.MISSING, "not installed", gives, "pip install google-crc32c")
    if google_crc32c.implementation == "c":
        return Line(_TOPIC, "crc32c", State.READY, "by the processor's instructions", gives)
    remedy = "pip install --force-reinstall google-crc32c, on a Python that has wheels of it"
    return Line(_TOPIC, "crc32c", State.MISSING, "in Python, which is slow", gives, remedy)


def _keys() -> Line:
    import ssl

    gives = "--tls-psk-file: NBD over TLS with keys in place of certificates"
    if hasattr(ssl, "HAS_PSK") and ssl.HAS_PSK:
        return Line(_TOPIC, "tls keys", State.READY, ssl.OPENSSL_VERSION, gives)
    return Line(_TOPIC, "tls keys", State.MISSING, "this Python's ssl has none", gives, "Python 3.13 or newer")
