"""TLS over a stream: ``TlsStream``, and the two ways to begin it that a handshake is run with.

``server_start_tls`` and ``client_start_tls`` give what ``nbd.transport.run`` and a server's ``Options`` call at
STARTTLS ("The NBD protocol over TLS" of doc/proto.md). Ciphertext moves in large pieces: one receive feeds many
records, and many records leave by one send.

Knows: TLS sessions in memory, and who may touch them when. Refuses to know: where keys come from, sockets, NBD.
"""

from __future__ import annotations

import ssl
import threading
from contextlib import suppress
from typing import Final

from blockwright.errors import NotTrusted, RemoteProtocolError, UsageError
from blockwright.nbd.credentials import Credentials, Path, client_credentials, said, server_credentials
from blockwright.nbd.protocol.steps import Identity
from blockwright.nbd.transport import Deadline, Stream, TlsStarter
from blockwright.nbd.uri import NbdUri
from blockwright.units import KiB

PIECE: Final = 128 * KiB
"""Bytes that are encrypted and sent at once: they stay in the processor's cache between the two."""
LARGEST: Final = 256 * KiB
"""The most ciphertext that is received at once."""
SMALLEST: Final = 20 * KiB
"""Bytes of an idle stream's buffer for ciphertext: one record of the largest kind, and more."""

_NOTHING: Final = memoryview(b"")
_MAX_LEFT: Final = 16
"""Receives that throw away what a peer still sends when we close."""


def server_start_tls(
    certificates: Path | None = None, *, verify_clients: bool = False, psk_file: Path | None = None
) -> TlsStarter:
    """Return what a server begins TLS with, as it is now in its files (see ``nbd.credentials``).

    With ``verify_clients`` a client must show a certificate of our authority; its names become the Identity's.
    The result raises RemoteProtocolError (NotTrusted for who the client is), TimeoutError, OSError.
    Raises NotFound, FormatError, NotSupported, UsageError for the files.
    """
    return _starter(server_credentials(certificates, verify_clients=verify_clients, psk_file=psk_file))


def client_start_tls(uri: NbdUri) -> TlsStarter:
    """Return what a client of ``uri`` begins TLS with.

    The server's certificate must be of a known authority and, where the address has a host, for it; unless the
    address says ``tls-verify-peer=0``. Raises as ``server_start_tls`` does.
    """
    return _starter(client_credentials(uri))


def _starter(credentials: Credentials) -> TlsStarter:
    def start(stream: Stream, host: str | None) -> tuple[Stream, Identity]:
        credentials.user = None
        try:
            found = _shake(stream, credentials.context, host)
        except RemoteProtocolError as error:
            if credentials.user is None or isinstance(error, NotTrusted):
                raise
            raise NotTrusted(f"{error}: the peer says that it is {credentials.user[:64]!r}") from None
        keyed = _used_key(found.session)
        if credentials.by_key and not keyed:
            raise NotTrusted("TLS: the peer does not prove itself by the shared key")
        return found, Identity(_names(found.session), credentials.user if keyed else None)

    return start


def _used_key(session: ssl.SSLObject) -> bool:
    """Whether both ends proved to know a shared key: that one was asked for does not say that it was used."""
    cipher = session.cipher()
    # TLS 1.3 treats a shared key as a session to go on with, and we keep no sessions of another kind.
    return "PSK" in cipher[0] or bool(session.session_reused) if cipher else False


class TlsStream(Stream):
    """An encrypted stream inside another, which it owns.

    Used by one receiving thread and any number of sending ones. What one ``send`` was given leaves in one piece; a
    receive never waits for a sender that waits for the peer. Bytes that ``send_now`` did not report as sent must be
    the next ones to be sent, as they may be encrypted already.
    """

    tls = True

    def __init__(
        self, inner: Stream, session: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self.session = session
        self._inner = inner
        self._incoming = incoming
        self._outgoing = outgoing
        # OpenSSL's sessions are for one thread at a time; held for no longer than some records take.
        self._lock = threading.Lock()
        # Who holds it sends ciphertext, in the order in which it was made.
        self._sending = threading.Lock()
        self._backlog = _NOTHING
        self._owed = 0
        self._broken = self._closed = False
        self._dry = self._ended = False
        self._room = memoryview(bytearray(SMALLEST))
        self.timeout_s = inner.timeout_s

    # -- receiving: one thread ---------------------------------------------------------------------------------

    def receive_into(self, buffer: memoryview) -> int:
        while True:
            count = self._decrypt(buffer)
            if count is not None:
                return count
            try:
                got = self._inner.receive_into(self._room)
            except TimeoutError:
                if len(self._room) > SMALLEST:
                    self._room = memoryview(bytearray(SMALLEST))
                raise
            self._take(got)

    def receive_now(self, buffer: memoryview) -> int | None:
        while True:
            count = self._decrypt(buffer)
            if count is not None:
                return count
            got = self._inner.receive_now(self._room)
            if got is None:
                return None
            self._take(got)

    def _take(self, count: int) -> None:
        """Hand received ciphertext to the session; none is the end, whether the peer said so inside TLS or not.

        A peer that is cut off within a request is noticed by whoever reads requests.
        """
        if not count:
            self._ended = True
            return
        with self._lock:
            self._incoming.write(self._room[:count])
        self._dry = False
        size = len(self._room)
        if count == size < LARGEST:
            self._room = memoryview(bytearray(min(LARGEST, size * 4)))

    def _decrypt(self, buffer: memoryview) -> int | None:
        """Fill the buffer as far as received ciphertext goes; 0 at the end, None where more must come first."""
        if self._ended:
            return 0
        if self._dry:
            return None
        session, incoming = self.session, self._incoming
        done, size = 0, len(buffer)
        with self._lock:
            try:
                while done < size:
                    count = _read(session, buffer[done:] if done else buffer)
                    if not count:
                        self._ended = True
                        break
                    done += count
                    if done < size and not incoming.pending:
                        self._dry = True
                        break
            except ssl.SSLWantReadError:
                self._dry = True
            except ssl.SSLZeroReturnError:
                self._ended = True
            except ssl.SSLError as error:
                raise _failure(error) from None
            finally:
                answer = self._outgoing.pending
        if answer:
            self._send_answer()
        return done or (0 if self._ended else None)

    def _send_answer(self) -> None:
        """Send what the session answers by itself (a key update, an alert), now if nobody is sending.

        Whoever sends next takes along what cannot go now: the peer waits for none of it.
        """
        if self._sending.acquire(blocking=False):
            try:
                self._drain(wait=False)
            finally:
                self._sending.release()

    # -- sending: who holds ``_sending`` -----------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> None:
        with self._sending:
            if self._backlog:
                self._drain(wait=True)
            rest = memoryview(data)[self._take_owed(len(data)) :]
            while rest:
                self._encrypt(rest[:PIECE])
                rest = rest[PIECE:]
                if rest or not more or self._outgoing.pending >= PIECE:
                    self._drain(wait=True)

    def send_now(self, data: memoryview) -> int:
        with self._sending:
            if not self._drain(wait=False):
                return 0
            sent = self._take_owed(len(data))
            while sent < len(data):
                piece = data[sent : sent + PIECE]
                self._encrypt(piece)
                if not self._drain(wait=False):
                    self._owed = len(piece)
                    break
                sent += len(piece)
            return sent

    def _take_owed(self, limit: int) -> int:
        """Return how many of the next bytes to send are sent already."""
        owed = min(self._owed, limit)
        self._owed -= owed
        return owed

    def _encrypt(self, piece: memoryview) -> None:
        """Make ciphertext of all of ``piece``."""
        with self._lock:
            try:
                while piece:
                    piece = piece[self.session.write(piece) :]
            except ssl.SSLError as error:
                raise _failure(error) from None

    def _drain(self, *, wait: bool) -> bool:
        """Send the ciphertext there is, and say whether all of it is out; it is where ``wait``."""
        if self._broken:
            raise BrokenPipeError("the stream broke while it was sent on")
        try:
            while self._backlog or self._outgoing.pending:
                if not self._backlog:
                    with self._lock:
                        self._backlog = memoryview(self._outgoing.read())
                if wait:
                    self._inner.send(self._backlog)
                    self._backlog = _NOTHING
                    continue
                self._backlog = self._backlog[self._inner.send_now(self._backlog) :]
                if self._backlog:
                    return False
        except BaseException:
            self._broken = True  # nobody knows how much of a record is out
            raise
        return True

    # -- the rest ----------------------------------------------------------------------------------------------

    def set_timeout(self, receive_s: float | None, send_s: float | None) -> None:
        self.timeout_s = receive_s
        self._inner.set_timeout(receive_s, send_s)

    def shut_down(self, *, reading_only: bool = False) -> None:
        self._inner.shut_down(reading_only=reading_only)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(OSError, RemoteProtocolError):
                self._say_goodbye()
            self._inner.close()

    def _say_goodbye(self) -> None:
        """Send close_notify if that needs no waiting ("NBD_CMD_DISC": TLS ends before TCP does)."""
        if self._broken or self._backlog:
            return
        with self._lock, suppress(ssl.SSLError):
            self.session.unwrap()
        self._drain(wait=False)
        # A socket that is closed with bytes unread resets the connection, and the peer may lose our last reply.
        for _ in range(_MAX_LEFT):
            if not self._inner.receive_now(self._room):
                break

    def fileno(self) -> int:
        return self._inner.fileno()


def _read(session: ssl.SSLObject, buffer: memoryview) -> int:
    # With a buffer it returns a count; its stub does not know that.
    return session.read(len(buffer), buffer)  # type: ignore[return-value]  # see above


def _shake(stream: Stream, context: ssl.SSLContext, host: str | None) -> TlsStream:
    """Return the encrypted stream, in the time that a receive of ``stream`` may take. Raises RemoteProtocolError."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.protocol == ssl.PROTOCOL_TLS_SERVER
    try:
        session = context.wrap_bio(incoming, outgoing, server_side=server, server_hostname=None if server else host)
    except ValueError as error:
        raise UsageError(f"TLS: {host!r} is no host name: {error}") from None
    deadline = Deadline(stream.timeout_s)
    room = memoryview(bytearray(SMALLEST))
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            finished = False
        except ssl.SSLError as error:
            with suppress(OSError):  # an alert: the peer learns why
                stream.send_now(memoryview(outgoing.read()))
            raise _failure(error) from None
        else:
            finished = True
        if outgoing.pending:
            stream.send(outgoing.read())
        if finished:
            return TlsStream(stream, session, incoming, outgoing)
        remaining_s = deadline.remaining_s
        if remaining_s is not None:
            stream.set_timeout(remaining_s, remaining_s)
        count = stream.receive_into(room)
        if not count:
            raise RemoteProtocolError("TLS: the peer ended the connection within the handshake")
        incoming.write(room[:count])


def _names(session: ssl.SSLObject) -> tuple[str, ...]:
    """Return the names in the peer's certificate, common name first; none where it was not verified."""
    certificate = session.getpeercert() or {}
    names: list[str] = []
    for parts in certificate.get("subject", ()):
        assert isinstance(parts, tuple), "ssl tells a name as a tuple of its parts"
        names += [str(part[1]) for part in parts if part[0] == "commonName"]
    for name in certificate.get("subjectAltName", ()):
        names.append(str(name[1]))
    return tuple(dict.fromkeys(names))


def _failure(error: ssl.SSLError) -> RemoteProtocolError:
    """Return our error for OpenSSL's: what is wrong with whom."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotTrusted(f"TLS: the peer's certificate does not hold: {error.verify_message.rstrip('.')}")
    reason = said(error)
    for prefix in ("tlsv13 alert ", "tlsv1 alert ", "sslv3 alert "):
        if reason.startswith(prefix):
            return RemoteProtocolError(f"TLS: the peer refuses: {reason.removeprefix(prefix)}")
    if reason == "peer did not return a certificate":
        return NotTrusted("TLS: the peer shows no certificate: expected one of our authority")
    return RemoteProtocolError(f"TLS: {reason}")
