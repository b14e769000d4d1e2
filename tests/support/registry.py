"""A registry in this process, with tokens, redirects and faults: what a client must survive, on purpose."""

import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.tarmaker import archive, member

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest512(data):
    return f"sha512:{hashlib.sha512(data).hexdigest()}"


class Content:
    """What a registry has: ``blobs`` and ``manifests`` by digest and tag. ``digest`` makes each digest."""

    def __init__(self, digest=digest):
        self.blobs, self.manifests, self.digest = {}, {}, digest

    def blob(self, data, media_type):
        self.blobs[self.digest(data)] = data
        return {"mediaType": media_type, "digest": self.digest(data), "size": len(data)}

    def manifest(self, document, tag=None):
        data = json.dumps(document).encode()
        for name in filter(None, (self.digest(data), tag)):
            self.manifests[name] = data, document["mediaType"]
        return {"mediaType": document["mediaType"], "digest": self.digest(data), "size": len(data)}

    def image(self, *layers, tag=None, architecture="amd64"):
        """Add an image of tar archives, and return its descriptor."""
        config = {
            "os": "linux",
            "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [self.digest(each) for each in layers]},
        }
        return self.manifest(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self.blob(json.dumps(config).encode(), CONFIG),
                "layers": [self.blob(each, LAYER) for each in layers],
            },
            tag,
        )

    def index(self, images, tag):
        """Add an index of images by architecture."""
        manifests = [
            {**each, "platform": {"os": "linux", "architecture": architecture}}
            for architecture, each in images.items()
        ]
        return self.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, tag)


def layer(name, body):
    return archive(member(name, body))


class Registry:
    """A server of ``content``. ``requests`` has (path, headers) of each; ``answer`` may take one over."""

    def __init__(self, content):
        self.content = content
        self.requests = []
        self.token = None
        self.user = None
        self.answer = None
        self.ranges = self.tells = True
        self.rate = None
        """Bytes in a second that one answer with a blob has, None for as many as there are."""
        self.most = None
        """Answers with a blob at once, beyond which the server is busy."""
        self.busy = self.busiest = self.refused = 0

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                if outer.answer is None or not outer.answer(self):
                    outer.serve(self)

            def do_HEAD(self):
                self.do_GET()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @staticmethod
    def send(handler, status, data=b"", **headers):
        handler.send_response(status)
        handler.send_header("Content-Length", headers.pop("Content_Length_", str(len(data))))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)

    def serve(self, handler):
        if handler.path.startswith("/token"):
            if self.user is not None and handler.headers.get("Authorization") != self.user:
                return self.send(handler, 401)
            return self.send(handler, 200, json.dumps({"token": self.token}).encode())
        if self.token is not None and handler.headers.get("Authorization") != f"Bearer {self.token}":
            realm = f'Bearer realm="http://{self.host}/token",service="test",scope="repository:app:pull"'
            return self.send(handler, 401, WWW_Authenticate=realm)
        found = re.fullmatch(r"/v2/app/(manifests|blobs)/(.+)", handler.path)
        kind, name = found.groups() if found else ("", "")
        if kind == "manifests" and name in self.content.manifests:
            data, media_type = self.content.manifests[name]
            told = {"Docker_Content_Digest": self.content.digest(data)} if self.tells else {}
            return self.send(handler, 200, data, Content_Type=media_type, **told)
        if kind == "blobs" and name in self.content.blobs:
            return self.send_blob(handler, self.content.blobs[name])
        return self.send(handler, 404, b'{"errors":[{"code":"UNKNOWN","message":"not here"}]}')

    def send_blob(self, handler, data):
        if self.most is not None and self.busy >= self.most:
            self.refused += 1
            return self.send(handler, 503)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
            if wanted is None or not self.ranges:
                return self.send_slowly(handler, 200, data)
            start, end = int(wanted[1]), int(wanted[2] or len(data) - 1) + 1
            told = f"bytes {start}-{end - 1}/{len(data)}"
            return self.send_slowly(handler, 206, data[start:end], Content_Range=told)
        finally:
            self.busy -= 1

    def send_slowly(self, handler, status, data, **headers):
        if self.rate is None:
            return self.send(handler, status, data, **headers)
        self.send(handler, status, b"", Content_Length_=str(len(data)), **headers)
        try:
            for at in range(0, len(data), 1 << 14):
                handler.wfile.write(data[at : at + (1 << 14)])
                time.sleep((1 << 14) / self.rate)
        except OSError:
            handler.close_connection = True  # the client hung up
        return None


def cut(handler, data, at, status=200, **headers):
    """Promise all of the data, send a part of it and hang up."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data[:at])
    handler.wfile.flush()
    handler.close_connection = True
    return True


@contextmanager
def serving(content):
    with Registry(content) as registry:
        yield registry
