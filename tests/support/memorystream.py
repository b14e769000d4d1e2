"""A stream that is bytes: what a client sends, all of it at once or in pieces, and what it is sent."""

from blockwright.nbd.transport import Stream


class MemoryStream(Stream):
    """Gives `data`, at most `piece` bytes a receive, and then the end. Keeps what is sent in `sent`."""

    def __init__(self, data: bytes, *, piece: int = 1 << 30) -> None:
        self._data = memoryview(data)
        self._piece = max(1, piece)
        self.sent = bytearray()
        self.closed = False

    def receive_into(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._data), self._piece)
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count

    def receive_now(self, buffer: memoryview) -> int | None:
        return self.receive_into(buffer)

    def send(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> None:
        self.sent += data

    def send_now(self, data: memoryview) -> int:
        self.sent += data
        return len(data)

    def set_timeout(self, receive_s: float | None, send_s: float | None) -> None:
        pass

    def shut_down(self, *, reading_only: bool = False) -> None:
        self._data = self._data[:0]

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return -1
