"""A proxy in front of a server of objects, which answers wrongly on purpose."""

import http.client
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_DROPPED = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


@dataclass(frozen=True)
class Fault:
    """What is wrong with one answer: ``cut`` the body behind so many bytes, another ``etag``, another ``status``
    (which the server is not asked for), the whole for a range, ``slow`` seconds between pieces, ``longer`` than it
    is by so many bytes as the header says."""

    cut: int | None = None
    etag: str | None = None
    status: int | None = None
    whole: bool = False
    slow: float = 0
    longer: int = 0
    blind: bool = False
    """Conditions are not handed on."""


class FaultProxy:
    """``fault`` is asked for each request, (method, path, headers), and answers with a Fault or None."""

    def __init__(self, upstream):
        self.upstream = urlsplit(upstream).netloc
        self.fault = None
        self.requests = []

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                fault = outer.fault and outer.fault(self.command, self.path, self.headers)
                outer.pass_on(self, fault or Fault())

            def do_HEAD(self):
                self.do_GET()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # a client that hangs up is no news
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def pass_on(self, handler, fault):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if fault.status is not None:
            handler.send_response(fault.status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "connection"}
        for name in list(headers):
            if (fault.whole and name.lower() == "range") or (fault.blind and name.lower().startswith("if-")):
                del headers[name]
        upstream = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            upstream.request(handler.command, handler.path, body, headers)
            answer = upstream.getresponse()
            self.answer(handler, fault, answer, answer.read())
        finally:
            upstream.close()

    def answer(self, handler, fault, answer, data):
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() == "etag" and fault.etag is not None:
                handler.send_header("ETag", fault.etag)
            elif name.lower() not in _DROPPED:
                handler.send_header(name, value)
        said = int(answer.getheader("Content-Length") or 0) if handler.command == "HEAD" else len(data)
        handler.send_header("Content-Length", str(said + fault.longer))
        handler.end_headers()
        sent = data if fault.cut is None else data[: fault.cut]
        step = 1024 if fault.slow else max(len(sent), 1)
        for at in range(0, len(sent), step):
            handler.wfile.write(sent[at : at + step])
            handler.wfile.flush()
            time.sleep(fault.slow)
        handler.close_connection = handler.close_connection or fault.cut is not None or fault.longer > 0


class Files:
    """A web server of ``content`` by path, with entity tags and ranges, as honest as ``tags`` lets it be."""

    def __init__(self, content):
        self.content = content
        self.tags = True

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.serve(self)

            def do_HEAD(self):
                outer.serve(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    __exit__ = FaultProxy.__exit__

    def serve(self, handler):
        data, tag, modified = self.content.get(handler.path, (None, None, None))
        wanted = handler.headers.get("If-Match")
        if data is None or (wanted is not None and (wanted != tag or tag.startswith("W/"))):
            handler.send_response(404 if data is None else 412)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        low, high = (int(asked[1]), int(asked[2] or len(data) - 1) + 1) if asked else (0, len(data))
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {low}-{high - 1}/{len(data)}")
        handler.send_header("Content-Length", str(high - low))
        if modified is not None:
            handler.send_header("Last-Modified", modified)
        if tag is not None:
            handler.send_header("ETag", tag)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(data[low:high])


@contextmanager
def faulty(content):
    """A context with a proxy in front of a web server of ``content``."""
    with Files(content) as files, FaultProxy(files.url) as proxy:
        yield proxy
