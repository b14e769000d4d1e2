"""A registry's manifests and blobs by HTTP: what is asked, who we say we are, and where redirects may lead.

A token is bought once and again when it is too old, also in the middle of a blob. Where a redirect leads to another
host, that host is not told who we are. Everything is read within limits; what a blob's bytes are is for ``blobs``.

Knows: the distribution API. Refuses to know: what manifests say, and where bytes are kept. Source: OCI
distribution-spec 1.1; docker's token authentication.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote, urlencode, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from blockwright.errors import ConnectionLost, NotFound, Refused, RemoteProtocolError, Unsupported
from blockwright.oci.credentials import Challenge, Credentials, find_credentials, parse_challenge
from blockwright.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, MAX_DOCUMENT, digest_of, is_digest
from blockwright.oci.reference import Reference, is_loopback
from blockwright.tree.ranges import MAX_CONNECTIONS

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

TIMEOUT_S: Final = 60.0
"""Seconds that a registry may say nothing."""
_MAX_REDIRECTS: Final = 5
_MAX_TOKEN: Final = 1 << 20
_MAX_TEXT: Final = 200
_PIECE: Final = 256 * 1024
_OK: Final = 200
_PARTIAL: Final = 206
_UNAUTHORIZED: Final = 401
_DENIED: Final = 403
_MISSING: Final = 404
_BUSY: Final = 429
_BROKEN: Final = 500
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_WHOSE: Final = re.compile(r"\A(?:<[^>]*>|HTTPS?Connection(?:Pool)?\([^)]*\)): ")
"""What urllib3's messages begin with."""
_ACCEPT: Final = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES))


class Registry:
    """The repository of a reference. Any number of threads may use it; close it.

    With ``plain`` it is spoken to without TLS, as one on this machine always is. Calls raise NotFound, Refused where
    the registry does not let us, ConnectionLost where trying again may help, RemoteProtocolError.
    """

    def __init__(self, reference: Reference, *, plain: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        self._reference = reference
        scheme = "http" if plain or is_loopback(reference.hostname) else "https"
        self._base = f"{scheme}://{reference.host}"
        self._pool = _pool(self._base, timeout_s)
        self._lock = threading.Lock()
        self._authorization: str | None = None
        self._credentials: Credentials | None = None
        self._asked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def manifest(self, version: str) -> tuple[bytes, str]:
        """Return a manifest's or index's bytes and its media type, by tag or digest. They are not verified."""
        with self._get(f"/v2/{self._reference.name}/manifests/{version}", {"Accept": _ACCEPT}) as response:
            if response.status != _OK:
                raise self._refusal(response, f"manifest {version}")
            data = b"".join(_bytes_of(response, MAX_DOCUMENT, f"{self._reference}: manifest"))
            return data, response.headers.get("Content-Type", "").partition(";")[0].strip()

    def digest(self, version: str) -> str:
        """Return the digest of a manifest or index, by tag or digest: as the registry tells, or else of its bytes."""
        path = f"/v2/{self._reference.name}/manifests/{version}"
        with self._get(path, {"Accept": _ACCEPT}, "HEAD") as response:
            told = response.headers.get("Docker-Content-Digest", "")
            if response.status == _OK and is_digest(told):
                return told
            if response.status == _MISSING:
                raise self._refusal(response, f"manifest {version}")
        data, _ = self.manifest(version)
        return digest_of(data)

    @contextmanager
    def blob(self, digest: str, start: int, size: int) -> Iterator[tuple[int, Iterator[memoryview]]]:
        """A context with a blob's bytes from ``start`` on, and the offset at which they really begin: ``start`` or 0.

        No more than ``size`` bytes of the whole are handed on.
        """
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with self._get(f"/v2/{self._reference.name}/blobs/{digest}", headers) as response:
            if response.status == _PARTIAL and start:
                said = response.headers.get("Content-Range", "")
                if not said.startswith(f"bytes {start}-"):
                    raise RemoteProtocolError(
                        f"{self._reference}: {digest}: expected the range from {start} on, found {said[:64]!r}"
                    )
            elif response.status == _OK:
                start = 0
            else:
                raise self._refusal(response, digest)
            yield start, _bytes_of(response, size - start, f"{self._reference}: {digest}")

    def part(self, digest: str, start: int, end: int, size: int) -> bytes:
        """Return bytes [start, end) of a blob of ``size`` bytes; ConnectionLost for any other answer."""
        what = f"{self._reference}: {digest}"
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        with self._get(f"/v2/{self._reference.name}/blobs/{digest}", headers) as response:
            said, asked = response.headers.get("Content-Range", ""), f"bytes {start}-{end - 1}/"
            if response.status != _PARTIAL or said not in (f"{asked}{size}", f"{asked}*"):
                raise ConnectionLost(f"{what}: expected {asked}…, found {response.status} with {said[:64]!r}")
            data = b"".join(_bytes_of(response, end - start, what))
        if len(data) < end - start:
            raise ConnectionLost(f"{what}: expected {end - start} bytes at {start}, found {len(data)}")
        return data

    # -- requests ----------------------------------------------------------------------------------------------

    @contextmanager
    def _get(self, path: str, headers: dict[str, str], method: str = "GET") -> Iterator[BaseHTTPResponse]:
        """A context with the response to a request, with who we are where the registry asks for it."""
        used = self._authorization
        response, ours = self._follow(self._base + path, headers, used, method)
        try:
            if response.status == _UNAUTHORIZED and ours:  # who else asks is told nothing
                challenge = parse_challenge(response.headers.get("WWW-Authenticate", ""))
                response.close()
                known = self._identify(challenge, used)
                response, _ = self._follow(self._base + path, headers, known, method)
            yield response
        finally:
            response.close()

    def _follow(
        self, url: str, headers: dict[str, str], authorization: str | None, method: str
    ) -> tuple[BaseHTTPResponse, bool]:
        """Return the response that redirects lead to, and whether it is the registry's own."""
        origin = urlsplit(url)
        for _ in range(_MAX_REDIRECTS + 1):
            here = urlsplit(url)
            ours = (here.scheme, here.netloc) == (origin.scheme, origin.netloc)
            told = headers | ({"Authorization": authorization} if authorization and ours else {})
            response = self._request(method, url, headers=told)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response, ours
            response.close()
            try:
                url = urljoin(url, location)
                there = urlsplit(url)
            except ValueError:
                raise RemoteProtocolError(f"{self._reference}: a redirect leads to no URL") from None
            if there.scheme not in ("http", "https") or (origin.scheme == "https" and there.scheme != "https"):
                raise RemoteProtocolError(f"{self._reference}: a redirect leads to {there.scheme[:16]}:, without TLS")
        raise RemoteProtocolError(f"{self._reference}: expected at most {_MAX_REDIRECTS} redirects, found more")

    def _request(self, method: str, url: str, **options: Any) -> BaseHTTPResponse:
        from urllib3.exceptions import HTTPError, LocationValueError, SSLError

        try:
            return self._pool.request(
                method, url, redirect=False, retries=False, preload_content=False, decode_content=False, **options
            )
        except SSLError as error:
            raise Refused(f"{_host_of(url)}: TLS: {_short(error)}") from None
        except (LocationValueError, HTTPException, ValueError) as error:  # a URL that cannot be asked for
            raise RemoteProtocolError(f"{_host_of(url)}: {_short(error)}") from None
        except (HTTPError, OSError) as error:
            raise ConnectionLost(f"{_host_of(url)}: {_short(error)}") from None

    def _refusal(self, response: BaseHTTPResponse, what: str) -> Exception:
        """Return the error that a response means, with the first of the registry's own messages."""
        said = ""
        with suppress(Exception):  # a text for people; whatever is wrong with it, the status counts
            first = json.loads(response.read(_MAX_TEXT * 20, decode_content=False))["errors"][0]
            said = f": {str(first.get('message') or first.get('code'))[:_MAX_TEXT]!r}"
        text = f"{self._reference}: {what}: the registry answered {response.status}{said}"
        if response.status == _MISSING:
            return NotFound(text)
        if response.status in (_UNAUTHORIZED, _DENIED):
            return Refused(f"{text}: log in with docker login, or a credential helper")
        if response.status == _BUSY or response.status >= _BROKEN:
            return ConnectionLost(text)
        return RemoteProtocolError(text)

    # -- who we are --------------------------------------------------------------------------------------------

    def _identify(self, challenge: Challenge | None, used: str | None) -> str | None:
        """Return what to say of ourselves now; ``used`` is what was said before, and did not do."""
        with self._lock:
            if self._authorization != used:
                return self._authorization  # another thread was quicker
            if not self._asked:
                self._credentials, self._asked = find_credentials(self._reference.host, self._reference.name), True
            if challenge is None:
                raise Refused(f"{self._reference}: the registry asks who we are in no way that is known")
            if challenge.scheme == "basic":
                found = None if self._credentials is None or used is not None else self._credentials.basic
            else:
                found = f"Bearer {self._buy(challenge.parameters)}"
            self._authorization = found
            return found

    def _buy(self, parameters: dict[str, str]) -> str:
        """Return a token for reading the repository, from where the challenge says."""
        realm = parameters.get("realm", "")
        try:
            where = urlsplit(realm)
            at_ours = where.netloc == urlsplit(self._base).netloc or is_loopback(where.hostname or "")
        except ValueError:
            raise RemoteProtocolError(f"{self._reference}: expected the URL of a token service, found none") from None
        if where.scheme != "https" and not (where.scheme == "http" and self._base.startswith("http:") and at_ours):
            raise Refused(f"{self._reference}: expected a token service with TLS, found {realm[:100]!r}")
        fields = {"scope": f"repository:{self._reference.name}:pull"}
        if "service" in parameters:
            fields["service"] = parameters["service"]
        credentials = self._credentials
        if credentials is not None and credentials.is_token:
            fields |= {"grant_type": "refresh_token", "refresh_token": credentials.secret, "client_id": "blockwright"}
            response = self._request(
                "POST",
                realm,
                body=urlencode(fields),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
        else:
            headers = {} if credentials is None else {"Authorization": credentials.basic}
            response = self._request(
                "GET", f"{realm}{'&' if where.query else '?'}{urlencode(fields)}", headers=headers
            )
        with closing(response):
            if response.status != _OK:
                raise Refused(f"{self._reference}: the token service answered {response.status}")
            data = b"".join(_bytes_of(response, _MAX_TOKEN, f"{self._reference}: token"))
        try:
            answer = json.loads(data)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, RecursionError, AttributeError):
            token = None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise RemoteProtocolError(f"{self._reference}: expected a token from the token service, found none")
        return token


def _pool(base: str, timeout_s: float) -> PoolManager:
    try:
        import urllib3
    except ImportError:
        raise Unsupported("registries need urllib3: pip install 'blockwright[registry]'", source=base) from None
    where = urlsplit(base)
    options: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=timeout_s, read=timeout_s),
        "headers": {"User-Agent": "blockwright"},
        "maxsize": 4 + MAX_CONNECTIONS,
    }
    if where.scheme == "https":
        options["ssl_context"] = ssl.create_default_context()
    direct = is_loopback(where.hostname or "") or proxy_bypass(where.netloc)
    proxy = None if direct else getproxies().get(where.scheme)
    return _proxy(proxy, options) if proxy else urllib3.PoolManager(**options)


def _proxy(proxy: str, options: dict[str, Any]) -> PoolManager:
    """Return a pool behind the proxy that the environment names. Its name and password are in no message."""
    import urllib3

    try:
        where = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
        url = f"{where.scheme}://{where.netloc}"
        headers = urllib3.make_headers(proxy_basic_auth=unquote(where.auth)) if where.auth else None
        return urllib3.ProxyManager(url, proxy_headers=headers, **options)
    except (urllib3.exceptions.HTTPError, ValueError, AssertionError):
        raise Refused("proxy: expected http://HOST:PORT or https://HOST:PORT in the environment") from None


def _host_of(url: str) -> str:
    """Return the host and port of a URL, without what may stand before them."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _bytes_of(response: BaseHTTPResponse, most: int, what: str) -> Generator[memoryview]:
    """Yield a response's body, of at most ``most`` bytes, as it comes."""
    from urllib3.exceptions import HTTPError

    done = 0
    try:
        for piece in response.stream(_PIECE, decode_content=False):
            done += len(piece)
            if done > most:
                raise RemoteProtocolError(f"{what}: expected at most {most} bytes, found more")
            yield memoryview(piece)
    except (HTTPError, OSError) as error:
        raise ConnectionLost(f"{what}: broke off at byte {done}: {_short(error)}") from None
    finally:
        response.close()  # with its connection, where nobody wants the rest


def _short(error: BaseException) -> str:
    """Return what an error says, without the addresses of objects and the nesting of libraries."""
    cause = getattr(error, "reason", None) or error
    text = _WHOSE.sub("", str(cause)) or type(cause).__name__
    return text.partition("\n")[0][:_MAX_TEXT]
