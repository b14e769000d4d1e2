import io
import json
import os
import socket

from blockwright.serve.logs import MAX_EVENTS, MAX_TEXT, json_log, text_log, troubles_only
from blockwright.serve.notify import notify, notify_ready


def clock():
    return 1_700_000_000.25


def test_text_is_one_line_whatever_a_client_sends():
    stream = io.StringIO()
    log = text_log(stream, clock)
    log("option refused", peer="10.0.0.1:5", reason="there is no export 'a\nb\x1b[2J'", nothing=None, empty="")
    log("plain", number=5, flag=False)
    first, second = stream.getvalue().splitlines()
    assert first == (
        "2023-11-14T22:13:20.250Z option refused peer=10.0.0.1:5 "
        'reason="there is no export \'a\\nb\\u001b[2J\'" empty=""'
    )
    assert second == "2023-11-14T22:13:20.250Z plain number=5 flag=False"


def test_a_value_has_a_limit():
    stream = io.StringIO()
    text_log(stream, clock)("event", value="x" * 10_000)
    json_log(stream, clock)("event", value="x" * 10_000)
    assert all(len(line) < MAX_TEXT + 100 for line in stream.getvalue().splitlines())


def test_a_second_has_a_limit_and_what_is_left_out_is_told():
    stream, now = io.StringIO(), [5.0]
    log = text_log(stream, lambda: now[0])
    for _ in range(MAX_EVENTS + 7):
        log("flood")
    assert stream.getvalue().count("flood") == MAX_EVENTS
    now[0] = 6.0
    log("calm")
    assert stream.getvalue().splitlines()[-2:] == [
        "1970-01-01T00:00:06.000Z events left out count=7",
        "1970-01-01T00:00:06.000Z calm",
    ]


def test_json_keeps_numbers():
    stream = io.StringIO()
    json_log(stream, clock)("event", number=5, text='a"\n', none=None, other=ValueError("x"))
    assert json.loads(stream.getvalue()) == {
        "time": "2023-11-14T22:13:20.250Z",
        "event": "event",
        "number": 5,
        "text": 'a"\n',
        "none": None,
        "other": "x",
    }


def test_routine_is_left_out():
    said = []
    log = troubles_only(lambda event, /, **fields: said.append(event))
    log("connected")
    log("disconnected", how="done")
    log("disconnected", how="stopped")
    log("disconnected", how="cut off")
    log("disconnected", how="failed")
    log("refused")
    assert said == ["disconnected", "disconnected", "refused"]


def test_a_closed_stream_does_not_end_the_server():
    stream = io.StringIO()
    stream.close()
    text_log(stream)("event")


def test_the_manager_is_told_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    for path in (str(tmp_path / "notify"), f"@blockwright test notify {os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(60)
            manager.bind(path.replace("@", "\0"))
            monkeypatch.setenv("NOTIFY_SOCKET", path)
            notify_ready("two\nlines")
            assert b"STATUS=two lines\n" in manager.recv(1000)
    for path in ("relative", "/missing/socket", "/" + "x" * 200):
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert not notify("READY=1")
