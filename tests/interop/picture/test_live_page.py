"""`serve --ui` as a browser sees it, and as those see it who should not."""

import http.client
import json
import time
import urllib.parse
import urllib.request

import pytest

from blockwright.nbd.client.connect import connect
from tests.support.browser import browsing
from tests.support.command import blockwright
from tests.support.serving import serving

NAME = "<b>scratch</b>"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    disk = tmp_path_factory.mktemp("live") / "disk.img"
    with open(disk, "wb") as file:
        file.truncate(8 << 20)
    arguments = ["mem:64M", disk, "--name", NAME, "--name", "disk", "--listen", "localhost:0", "--ui", "0"]
    with serving(*arguments) as found:
        found.page = found.said("live page at ").split(" at ")[1]
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


def export(server, name):
    return connect(server.uri + urllib.parse.quote(name, safe=""), writable=True)


def live(server, name=None):
    query = "" if name is None else f"?{urllib.parse.urlencode({'export': name})}"
    with urllib.request.urlopen(f"{server.page}live.json{query}", timeout=60) as answer:
        return json.load(answer)


def ask(server, method="GET", path="/", **headers):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server.page).netloc, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    for key, value in headers.items():
        connection.putheader(key.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_blocks_are_counted_where_they_lie(server):
    before = live(server, NAME)["heat"]
    assert before["block"] * len(before["read"]) == 64 << 20
    with export(server, NAME) as device:
        device.write(before["block"] * 3 + 4096, bytes(8192))
        device.read(before["block"] * 5, 3 * before["block"])
        device.flush()
    after = live(server, NAME)["heat"]
    written = [b - a for a, b in zip(before["written"], after["written"], strict=True)]
    read = [b - a for a, b in zip(before["read"], after["read"], strict=True)]
    assert {index: value for index, value in enumerate(written) if value} == {3: 8192}
    assert {index: value for index, value in enumerate(read) if value} == dict.fromkeys((5, 6, 7), before["block"])


def test_the_document_names_one_export_s_blocks(server):
    found = live(server, "disk")
    assert found["schema"] == "blockwright.serve.live/1"
    assert [each["name"] for each in found["exports"]] == [NAME, "disk"]
    assert found["heat"]["export"] == "disk"
    assert live(server, "no such")["heat"]["export"] == NAME


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("LOCALHOST", 200), ("evil.example", 421),
        ("localhost.evil.example", 421), ("127.0.0.1.evil.example:80", 421), ("", 421), ("[::1", 200), ("[x]", 421),
    ],
)  # fmt: skip
def test_names_of_other_sites_lead_nowhere(server, host, status):
    for path in ("/", "/live.json", "/page.js"):
        assert ask(server, path=path, Host=host).status == status
    assert ask(server).status == 421


def test_other_sites_cannot_ask_and_nobody_can_change(server):
    assert ask(server, path="/live.json", Host="localhost", Sec_Fetch_Site="cross-site").status == 403
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(server, method, "/live.json", Host="localhost").status == 405
    for path in ("/../page.js", "/index.html", "/__init__.py", "/page.css/", "//", "/%2e"):
        assert ask(server, path=path, Host="localhost").status == 404
    answer = ask(server, Host="localhost")
    assert answer.getheader("Content-Security-Policy").startswith("default-src 'none'; script-src 'self'")
    assert answer.getheader("Access-Control-Allow-Origin") is None


def test_other_hosts_are_refused_unless_wanted(tmp_path):
    done = blockwright("serve", "mem:1M", "--socket", tmp_path / "s", "--ui", "0.0.0.0:0", code=2)
    assert b"--ui-remote" in done.stderr
    blockwright("serve", "mem:1M", "--socket", tmp_path / "s", "--ui", ":0", code=2)
    blockwright("serve", "mem:1M", "--socket", tmp_path / "s", "--ui-remote", code=2)
    with serving("mem:1M", "--socket", tmp_path / "t", "--ui", "0.0.0.0:0", "--ui-remote") as found:
        found.said("live page at ")


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_shows_what_happens(server, browser, dark):
    browser.emulate(dark=dark)
    browser.resize(1200, 900)
    with export(server, NAME) as device:
        browser.open(server.page)
        browser.until("return document.getElementById('state').textContent === 'live'")
        device.write(0, bytes(1 << 20))
        assert browser.until("return document.getElementById('peak').textContent.startsWith('at most')")
        browser.until("return document.getElementById('latency').textContent.includes('write')")
        text = browser.text()
    for expected in (NAME, "disk", "64 MiB", "256 blocks of 256 KiB", "1 of 100", "127.0.0.1", "read, write"):
        assert expected in text, expected
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(16, 21, 27)" if dark else "rgb(255, 255, 255)")
    assert not browser.run("return document.querySelectorAll('b').length")
    assert browser.errors() == []


@pytest.mark.slow
def test_a_keyboard_reaches_exports_and_blocks(server, browser):
    browser.emulate()
    browser.open(server.page)
    browser.until("return document.querySelectorAll('#exports button').length === 2")
    seen = []
    for _ in range(7):
        browser.press("Tab")
        seen.append(browser.focused())
    assert [each[2] for each in seen[:2]] == ["Skip to the exports", "Pause"]
    assert [each[2] for each in seen[3:5]] == [NAME, "disk"]
    assert [each[1] for each in seen[5:7]] == ["heat-read", "heat-written"]
    browser.press("Right", "Right", "Down")
    assert browser.text("#cell").startswith("Block 35 of 256: from ")
    browser.run("document.querySelectorAll('#exports button')[1].focus()")
    browser.press("Enter")
    browser.until("return document.getElementById('chosen').textContent === 'disk'")
    browser.run("document.getElementById('pause').focus()")
    browser.press("Enter")
    assert browser.text("#state") == "paused"
    assert browser.errors() == []


@pytest.mark.slow
def test_an_export_that_is_used_is_shown_first(server, browser):
    with export(server, "disk") as device:
        device.read(0, 4096)
        browser.open(server.page)
        browser.until("return document.getElementById('chosen').textContent === 'disk'")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1100])
def test_what_has_the_focus_is_seen_whole(server, browser, width):
    """The ring around it reaches 5 pixels out, and what scrolls cuts off what is outside of it."""
    browser.resize(width, 900)
    browser.open(server.page)
    browser.until("return document.querySelectorAll('#exports button').length === 2")
    room = browser.run(
        "const box = (e) => e.getBoundingClientRect(), scroll = box(document.querySelector('.scroll'));"
        "return [...document.querySelectorAll('#exports button')].map(e => box(e).left - scroll.left)"
    )
    assert min(room) >= 5
    rows = browser.run("return ['h1', '#pause'].map(e => document.querySelector(e).getBoundingClientRect().bottom)")
    assert abs(rows[0] - rows[1]) < 20, "one line above all"


@pytest.mark.slow
def test_the_page_fits_a_phone_and_keeps_still_where_asked(server, browser):
    browser.resize(390, 844)
    browser.emulate(reduced=True)
    browser.open(server.page)
    browser.until("return document.querySelectorAll('#heat-read .hot').length > 0")
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    moving = "return getComputedStyle(document.querySelector('#heat-read .hot')).transitionDuration"
    assert set(browser.run(moving).split(", ")) == {"0s"}
    browser.emulate()
    assert "0.3s" in browser.run(moving)


@pytest.mark.slow
def test_sessions_in_worker_processes_are_counted_too(server):
    before = live(server, "disk")["heat"]
    with export(server, "disk") as first, export(server, "disk") as second:
        for device in (first, second):
            device.write(before["block"] * 9, b"x" * before["block"])
        first.flush()
        second.flush()
    end = time.monotonic() + 60
    while (now := live(server, "disk")["heat"]["written"][9]) < before["written"][9] + 2 * before["block"]:
        assert time.monotonic() < end, now
        time.sleep(0.1)
