"""Where an object is: the URLs of stores, cut into bucket and key.

Knows: spelling. Refuses to know: whether anything is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from blockwright.errors import UsageError

SCHEMES: Final = ("s3", "gs", "az", "http", "https")
"""What a URL of a store begins with."""

MAX_KEY: Final = 1024
"""Bytes of a key: the limit of S3 and of Google Cloud Storage."""


@dataclass(frozen=True, slots=True)
class ObjectAddress:
    """``bucket`` is the URL that the key is relative to: ``s3://bucket``, or the server's for HTTP."""

    bucket: str
    key: str

    @property
    def readable_only(self) -> bool:
        """Whether nothing can be written there: a web server."""
        return self.bucket.startswith("http")

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"


def is_store_url(text: str) -> bool:
    """Return whether the text is meant as an address in a store."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme in SCHEMES


def parse_object(url: str) -> ObjectAddress:
    """Return the address that a URL means. Raises UsageError for what names no object.

    Keys of a bucket are taken as they are written; a web server's path may have escapes, and its query is refused,
    since a part of a disk asks for it again and again.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url[:200]!r}: expected the URL of an object: {error}") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise UsageError(f"{url[:200]!r}: expected {'://, '.join(SCHEMES)}:// and a bucket or host")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"{parts.scheme}://{parts.hostname}: expected no credentials in a URL: others can read it")
    if parts.scheme in ("http", "https"):
        if parts.query:
            raise UsageError(f"{url[:200]!r}: expected a URL without a query")
        bucket = f"{parts.scheme}://{parts.hostname if port is None else f'{parts.hostname}:{port}'}"
        if ":" in parts.hostname:
            bucket = bucket.replace(parts.hostname, f"[{parts.hostname}]", 1)
        key = unquote(parts.path.removeprefix("/"))
    else:
        bucket = f"{parts.scheme}://{parts.netloc}"
        key = url[len(bucket) :].partition("#")[0].removeprefix("/")
    if not key.strip("/"):
        raise UsageError(f"{url[:200]!r}: expected the key of an object behind {bucket}/")
    if len(key.encode(errors="surrogateescape")) > MAX_KEY or any(part in ("", ".", "..") for part in key.split("/")):
        raise UsageError(f"{url[:200]!r}: expected a key of at most {MAX_KEY} bytes without empty or dotted parts")
    return ObjectAddress(bucket, key)
