"""Stores of the world through obstore: S3 and what speaks it, Google Cloud Storage, Azure, and web servers.

Credentials and endpoints come from the environment, under the names that each provider's own tools use. A bucket
for which there are none is read as the public one it then must be: no metadata service is asked unless
``AWS_SKIP_SIGNATURE=false`` says so.

Knows: obstore. Refuses to know: what objects are for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from blockwright.codec.record import Buffer
from blockwright.errors import ObjectNotFound, PreconditionFailed, StoreError, Throttled, Unsupported
from blockwright.store.away import Away
from blockwright.store.objects import ObjectInfo, Objects, Version

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

_PIECE: Final = 64 * 1024
"""Bytes of a piece of a stream at least: what came fastest of the sizes that were tried."""

_MAX_LINE: Final = 300
"""Characters of a store's own words in a message."""
_RETRIES: Final = 5
_RETRY_S: Final = 60
_REQUEST_S: Final = 600
"""Seconds for a request with its body. What streams longer goes on by another."""
_SILENCE_S: Final = 30
"""Seconds in which a store may say nothing."""

_AWS_CREDENTIALS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_GOOGLE_CREDENTIALS: Final = (
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SKIP_SIGNATURE",
)
_NO_RANGES: Final = ("Range request not supported", "non-partial response")
"""What is said of a server that answers the whole where a part was asked for."""
_BUSY: Final = ("429", "503", "SlowDown", "Too Many Requests")


def open_bucket(url: str) -> Objects:
    """Return the objects of a bucket, ``s3://bucket``, ``gs://bucket``, ``az://container`` or ``http(s)://host``.

    Nothing is asked of it yet. Raises Unsupported where obstore is not installed, StoreError for settings of the
    environment that do not hold.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise Unsupported("object storage needs obstore: pip install 'blockwright[store]'", source=url) from None
    scheme = url.partition("://")[0]
    make: Any = from_url  # whose overloads want to know which store it is
    try:
        store = make(
            url,
            config=_unsigned(scheme),
            client_options={
                "allow_http": _may_be_plain(scheme),
                "timeout": timedelta(seconds=_REQUEST_S),
                "read_timeout": timedelta(seconds=_SILENCE_S),
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)},
        )
    except (BaseError, ValueError) as error:
        raise StoreError(f"{url}: {_line(error)}") from None
    return CloudObjects(store, url)


def _may_be_plain(scheme: str) -> bool:
    """Whether requests may go without TLS: to an endpoint that the user spelled so."""
    return endpoint_of("s3://").startswith("http://") if scheme == "s3" else scheme == "http"


def endpoint_of(url: str) -> str:
    """Return the server that the environment names for a bucket of S3; nothing where that is the provider's own."""
    if not url.startswith("s3://"):
        return ""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[each] for each in names if os.environ.get(each)), "")


def _unsigned(scheme: str) -> dict[str, bool] | None:
    """Return the setting that sends requests without a signature where nothing is there to sign with."""
    if scheme == "s3" and not any(os.environ.get(each) for each in _AWS_CREDENTIALS):
        return {"skip_signature": True}
    if scheme == "gs" and not any(os.environ.get(each) for each in _GOOGLE_CREDENTIALS):
        return {"skip_signature": True}
    return None


class CloudObjects(Objects):
    """The objects of an obstore store."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        super().__init__(name)
        self._store = store
        self._away = Away()

    def head(self, key: str) -> ObjectInfo:
        import obstore

        with self._telling(key):
            return _info(self._away(lambda: obstore.head(self._store, key)))

    def get(self, key: str, start: int, end: int, *, match: Version | None = None) -> memoryview:
        import obstore

        with self._telling(key):
            options = _options((start, end), match)
            result = self._away(lambda: obstore.get(self._store, key, options=options))
            self._check_version(result.meta, match)
            data = memoryview(self._away(result.bytes))
        if len(data) != end - start:
            raise StoreError(
                f"{self.name_of(key)}: expected {end - start} bytes at {start}, found {len(data)}", permanent=False
            )
        return data

    def stream(self, key: str, start: int, *, match: Version | None = None) -> Iterator[memoryview]:
        with self._telling(key):
            result, skipped = self._from(key, start, match)
            self._check_version(result.meta, match)
            pieces = iter(result.stream(_PIECE))
            while (piece := self._away(lambda: next(pieces, None))) is not None:
                data = memoryview(piece)
                skip = min(skipped, len(data))
                skipped -= skip
                if skip < len(data):
                    yield data[skip:]

    def _from(self, key: str, start: int, match: Version | None) -> tuple[Any, int]:
        """Return what a store answers from ``start`` on, and how much is before that: of one that knows no ranges."""
        import obstore
        from obstore.exceptions import GenericError, NotSupportedError

        whole = _options(None, match)
        if start:
            options = _options({"offset": start}, match)
            try:
                return self._away(lambda: obstore.get(self._store, key, options=options)), 0
            except (GenericError, NotSupportedError) as error:
                if not any(each in str(error) for each in _NO_RANGES):
                    raise
        return self._away(lambda: obstore.get(self._store, key, options=whole)), start

    def put(self, key: str, data: Buffer, *, only_new: bool = False, over: Version | None = None) -> Version:
        import obstore

        mode: Any = "create" if only_new else "overwrite"
        if over is not None:
            mode = {name: value for name, value in (("e_tag", over.etag), ("version", over.number)) if value}
        with self._telling(key):
            # In one request: what goes in parts stays in the bucket where the process ends before the last.
            result = obstore.put(self._store, key, data, mode=mode, use_multipart=False)
        return Version(result["e_tag"], result["version"])

    def delete(self, keys: Sequence[str]) -> None:
        import obstore

        try:
            with self._telling(keys[0] if len(keys) == 1 else ""):
                obstore.delete(self._store, list(keys))
        except ObjectNotFound:
            if len(keys) > 1:  # where one had nothing, others may be left
                for key in keys:
                    self.delete([key])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        import obstore

        with self._telling(prefix):
            found = iter(obstore.list(self._store, prefix))
            while (some := self._away(lambda: next(found, None))) is not None:
                yield from map(_info, some)

    def _check_version(self, meta: Any, match: Version | None) -> None:
        """Raise PreconditionFailed for another version: there are servers that do not look at conditions."""
        if match is None:
            return
        found = _info(meta).version
        if match.etag is None:
            same = found == match
        else:  # by the weak comparison: a tag may be weak in one answer and not in the next
            same = found.etag is not None and found.etag.removeprefix("W/") == match.etag.removeprefix("W/")
        if not same:
            raise PreconditionFailed(f"{self.name_of(meta['path'])}: another version is there")

    @contextmanager
    def _telling(self, key: str) -> Iterator[None]:
        """Have obstore's errors raised as ours."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            raise self._told(error, key) from None

    def _told(self, error: Exception, key: str) -> StoreError:
        """Return the error that ``error`` of obstore means."""
        from obstore import exceptions

        text = f"{self.name_of(key)}: {_line(error)}"
        if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)):
            return ObjectNotFound(f"{self.name_of(key)}: no such object")
        if isinstance(error, (exceptions.PreconditionError, exceptions.AlreadyExistsError)):
            return PreconditionFailed(f"{self.name_of(key)}: another version is there")
        if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
            return StoreError(f"{self.name_of(key)}: access denied: give the bucket's credentials in the environment")
        if isinstance(error, exceptions.GenericError):
            return Throttled(text) if any(each in text for each in _BUSY) else StoreError(text, permanent=False)
        return StoreError(text)


def _options(part: Any, match: Version | None) -> GetOptions:
    """Return what a read asks for: a part, None for all, and of this version; one without a tag cannot be asked for.

    One with a weak tag never meets the condition (RFC 9110, section 13.1.1).
    """
    found: GetOptions = {} if part is None else {"range": part}
    if match is not None and match.etag is not None and not match.etag.startswith("W/"):
        found["if_match"] = match.etag
    return found


def _info(meta: Any) -> ObjectInfo:
    etag, number = meta.get("e_tag"), meta.get("version")
    if etag is None and number is None:  # a web server: what it says of size and time is all there is
        modified = meta["last_modified"]
        number = f"{meta['size']} bytes of {modified}" if modified.timestamp() else None  # the epoch is no answer
    return ObjectInfo(meta["path"], meta["size"], Version(etag, number))


def _line(error: BaseException) -> str:
    """Return the first line of what obstore says: behind it come its own structures, with headers in them."""
    line = str(error).partition("\n")[0].strip()
    return line if len(line) <= _MAX_LINE else line[:_MAX_LINE] + "…"
