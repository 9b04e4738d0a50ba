"""A real browser to click with: Chromium, driven by chromedriver over HTTP."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_driver = pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element in WebDriver's JSON
LOCAL = build_opener(ProxyHandler({}))


class Page:
    """A tab of the browser."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, path: str, content: dict | None = None) -> object:
        body = json.dumps(content or {}).encode() if method == "POST" else None
        request = Request(self.address + path, body, {"Content-Type": "application/json"}, method=method)
        with LOCAL.open(request, timeout=600) as answer:
            return json.load(answer)["value"]

    def open(self, address: str) -> None:
        self.call("POST", "/url", {"url": address})

    def find(self, selector: str) -> list[str]:
        found = self.call("POST", "/elements", {"using": "css selector", "value": selector})
        return [element[ELEMENT] for element in found]

    def click(self, selector: str) -> None:
        """Click the first element, as a mouse does: one that is covered by another isn't clicked."""
        self.call("POST", f"/element/{self.find(selector)[0]}/click")

    def texts(self, selector: str) -> list[str]:
        """What a reader sees of the elements."""
        return [self.call("GET", f"/element/{element}/text") for element in self.find(selector)]

    def back(self) -> None:
        self.call("POST", "/back")

    @property
    def location(self) -> str:
        return self.call("GET", "/url")

    def run(self, script: str) -> object:
        return self.call("POST", "/execute/sync", {"script": script, "args": []})


@contextmanager
def browse(folder: Path, javascript: bool = True, width: int = 1280) -> Iterator[Page]:
    """A tab with a fresh profile in `folder`, closed at the end. A container's /dev/shm may be too small: unused."""
    port = folder / "port"
    with port.open("w") as file:
        driver = subprocess.Popen([DRIVER, "--port=0"], stdout=file, stderr=subprocess.DEVNULL)
    try:
        root = f"http://127.0.0.1:{_announced_port(port)}"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        arguments += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"]
        arguments += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-dev-shm-usage"]
        options = {"binary": BROWSER, "args": arguments}
        if not javascript:
            options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        session = Page(root).call("POST", "/session", wanted)
        page = Page(f"{root}/session/{session['sessionId']}")
        try:
            yield page
        finally:
            page.call("DELETE", "")
    finally:
        driver.terminate()
        driver.wait(600)


def _announced_port(log: Path) -> int:
    for _ in range(3000):
        words = log.read_text(encoding="utf-8").replace(".", " ").split()
        if "port" in words and words[-1] != "port":
            found = [int(word) for word in words[words.index("port") :] if word.isdigit() and int(word)]
            if found:
                try:
                    LOCAL.open(f"http://127.0.0.1:{found[-1]}/status", timeout=5).close()
                except URLError:
                    pass
                else:
                    return found[-1]
        time.sleep(0.1)
    raise AssertionError(f"chromedriver didn't start: {log.read_text(encoding='utf-8')}")
