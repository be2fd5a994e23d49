"""A headless Chromium, spoken to through a pipe in its DevTools protocol: no library, no port."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time

from conftest import environment

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
         "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-extensions",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe")
START = """import os, sys                       # the browser reads from 3 and writes to 4
ends = [os.dup2(int(end), 100 + number) for number, end in enumerate(sys.argv[1:3])]
for number, end in enumerate(ends):
    os.dup2(end, 3 + number)
    os.close(end)
os.execv(sys.argv[3], sys.argv[3:])"""
PATIENCE_S = 60


def find_browser():
    """The path of a Chromium on this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser with one page; ``close`` ends it."""

    def __init__(self, program, folder):
        to_read, self.to_write = os.pipe()
        self.to_hear, from_it = os.pipe()
        argv = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(to_read), str(from_it), *argv], env=environment(),
            pass_fds=(to_read, from_it), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(from_it)
        self.number, self.heard, self.events, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """The result of a command; what happened meanwhile is added to ``events``."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | (
            {"sessionId": self.session} if self.session else {})
        os.write(self.to_write, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda each: each.get("id") == self.number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _wait(self, wanted):
        end = time.monotonic() + PATIENCE_S
        while True:
            whole, mark, rest = self.heard.partition(b"\0")
            if mark:
                self.heard = rest
                message = json.loads(whole)
                self.events.append(message)
                if wanted(message):
                    return message
                continue
            assert select.select([self.to_hear], [], [], end - time.monotonic())[0], "the browser says nothing"
            heard = os.read(self.to_hear, 1 << 20)
            assert heard, "the browser has ended"
            self.heard += heard

    def look(self, path, width, height=900, *, scripts=True, dark=False):
        """Opens a file in a window of that many pixels; returns the addresses that it asked for."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=f"file://{path}")
        if not any(each.get("method") == "Page.loadEventFired" for each in self.events):
            self._wait(lambda each: each.get("method") == "Page.loadEventFired")
        return [each["params"]["request"]["url"] for each in self.events
                if each.get("method") == "Network.requestWillBeSent"]

    def complaints(self):
        """What the browser logged about the page."""
        return [each["params"]["entry"]["text"] for each in self.events if each.get("method") == "Log.entryAdded"]

    def value(self, script):
        """What a JavaScript expression is."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, path):
        """The whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True,
                         clip={"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1})
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self, path):
        """The page as PDF on A4; returns its bytes."""
        data = base64.b64decode(self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
        path.write_bytes(data)
        return data

    def close(self):
        if self.process.poll() is None:
            os.write(self.to_write, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        os.close(self.to_write)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to_hear)
