"""A headless Chromium, driven over WebDriver (W3C Recommendation, 2018) by as much of it as the tests need."""

import base64
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time

import pytest

from tests.support.ports import free_port

_KEY = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015"}
WAIT_S = 60.0


def require_browser():
    """Skip without Chromium and its driver; with CI=true, fail."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{', '.join(missing)}: not installed")
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")


class Browser:
    """One window. Every script of the page runs as it would; what it logs is ``errors``."""

    def __init__(self, port, session):
        self._port = port
        self._path = f"/session/{session}"

    def call(self, method, path, body=None):
        return _call(self._port, method, self._path + path, body)

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *args):
        """Return what a script's function body returns in the page, though the page's policy allows none."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(args)})

    def until(self, script, *args):
        """Wait until a script returns something true, and return that."""
        end = time.monotonic() + WAIT_S
        while not (found := self.run(script, *args)):
            assert time.monotonic() < end, f"never came true: {script}"
            time.sleep(0.05)
        return found

    def text(self, selector="body"):
        """Return the text that is seen."""
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def press(self, *keys):
        """Press keys one after the other, wherever the focus is."""
        pressed = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": pressed}]})

    def focused(self):
        """Return the element that has the focus, as a few words."""
        return self.run(
            "const e = document.activeElement;"
            "const text = e.getAttribute('aria-label') || e.textContent.trim().slice(0, 60);"
            "return [e.tagName.toLowerCase(), e.id, text]"
        )

    def emulate(self, *, dark=False, reduced=False, printed=False):
        """Prefer a colour scheme and less motion, or be printed."""
        wanted = {"prefers-color-scheme": "dark" if dark else "light"}
        wanted["prefers-reduced-motion"] = "reduce" if reduced else "no-preference"
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.devtools("Emulation.setEmulatedMedia", media="print" if printed else "", features=features)

    def resize(self, width, height):
        """Have a viewport of that many CSS pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def devtools(self, command, **params):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def screenshot(self, path, *, whole=False):
        """Write what is seen as PNG, or the whole page."""
        found = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(found["data"]))

    def errors(self):
        """Return what was logged as wrong since the last time: exceptions, what a policy has refused, what failed."""
        logged = self.call("POST", "/se/log", {"type": "browser"})
        return [each["message"] for each in logged if each["level"] == "SEVERE"]


def _call(port, method, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body).encode())
        value = json.load(connection.getresponse())["value"]
    if isinstance(value, dict) and "error" in value:
        raise AssertionError(f"{method} {path}: {value['error']}: {value['message']}")
    return value


@contextlib.contextmanager
def browsing(directory):
    """Start a browser whose files are kept in ``directory``, and yield it."""
    require_browser()
    port = free_port()
    log = directory / "chromedriver.log"
    arguments = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--disable-background-networking", "--no-first-run", f"--user-data-dir={directory / 'profile'}",
    ]  # fmt: skip
    options = {"args": arguments, "binary": shutil.which("chromium")}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    with (
        open(log, "wb") as out,
        subprocess.Popen(["chromedriver", f"--port={port}"], stdout=out, stderr=out) as driver,
    ):
        try:
            _wait_for(port, driver)
            made = _call(port, "POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            browser = Browser(port, made["sessionId"])
            try:
                yield browser
            finally:
                browser.call("DELETE", "")
        finally:
            driver.terminate()


def _wait_for(port, driver):
    end = time.monotonic() + WAIT_S
    while True:
        try:
            if _call(port, "GET", "/status", None)["ready"]:
                return
        except OSError:
            pass
        assert driver.poll() is None, "chromedriver ended"
        assert time.monotonic() < end, "chromedriver does not answer"
        time.sleep(0.05)
