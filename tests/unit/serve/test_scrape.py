import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from blockwright.serve import web
from blockwright.serve.scrape import ScrapeServer
from blockwright.serve.web import MAX_AT_ONCE, MAX_REQUEST


@pytest.fixture
def server():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with ScrapeServer([listener], lambda: "up 1\n", "text/plain"):
        yield port


def ask(port, data, *, close=False):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(data)
        if close:
            client.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := client.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


def test_metrics_are_answered(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server}/metrics", timeout=30) as answer:
        assert answer.read() == b"up 1\n"
        assert answer.headers["Content-Type"] == "text/plain"
    assert ask(server, b"HEAD /metrics HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")
    assert ask(server, b"GET /metrics?x=1 HTTP/1.1\nHost: x\n\n").endswith(b"up 1\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\0" * 100 + b"\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", b"400"),
        (b"GET /" + b"a" * MAX_REQUEST, b"431"),
    ],
)
def test_anything_else_is_refused(server, request_, status):
    assert ask(server, request_).split(b" ")[1] == status


def test_a_client_that_says_nothing_costs_a_deadline_and_no_more(server, monkeypatch):
    monkeypatch.setattr(web, "DEADLINE_S", 0.05)
    silent = [socket.create_connection(("127.0.0.1", server), timeout=30) for _ in range(3 * MAX_AT_ONCE)]
    try:
        end = time.monotonic() + 60
        while not ask(server, b"GET / HTTP/1.1\r\n\r\n").endswith(b"up 1\n"):  # it may be late itself
            assert time.monotonic() < end
        assert all(client.recv(1) == b"" for client in silent)
    finally:
        for client in silent:
            client.close()


def test_a_client_that_hangs_up_is_forgotten(server):
    assert ask(server, b"GET /met", close=True) == b""
    assert ask(server, b"GET / HTTP/1.1\r\n\r\n").endswith(b"up 1\n")


def test_it_ends(server):
    assert any(thread.name == "metrics" for thread in threading.enumerate())
    listener = socket.create_server(("127.0.0.1", 0))
    with ScrapeServer([listener], str, "text/plain") as other:
        pass
    assert not any(thread.is_alive() for thread in other._threads)


def test_nobody_listens_any_more():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with ScrapeServer([listener], str, "text/plain"):
        pass
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30)
