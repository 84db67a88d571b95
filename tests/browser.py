"""Chromium without a window, driven by the DevTools protocol over a pipe."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager

CHROMIUM = shutil.which("chromium")
QUIET = "--disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync"
PATIENCE_S = 60


class Tab:
    """A tab; `errors` holds what its scripts threw and what was written to its console as an error."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self._number, self._session, self.errors = 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """What the browser answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._send(message)
        while True:
            told = self._receive()
            if told.get("method") == "Runtime.exceptionThrown":
                self.errors.append(told["params"]["exceptionDetails"]["exception"].get("description"))
            if told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.errors.append(told["params"]["entry"]["text"])
            if told.get("id") == self._number:
                assert "error" not in told, (method, told["error"])
                return told["result"]

    def value(self, expression):
        """What a JavaScript expression is, once a promise is kept."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression):
        """Wait for an expression to be true, and give its value."""
        end = time.monotonic() + PATIENCE_S
        while not (value := self.value(expression)):
            assert time.monotonic() < end, (
                f"never true: {expression}; {self.errors}; {self.value('document.body.innerText')}"
            )
            time.sleep(0.02)
        return value

    def text(self, selector):
        """The text that an element shows."""
        return self.value(f"document.querySelector({json.dumps(selector)}).innerText")

    def shows(self, selector):
        """Whether an element can be seen."""
        return self.value(f"document.querySelector({json.dumps(selector)}).getClientRects().length > 0")

    def press(self, key):
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            extra = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **extra)

    def click(self, selector):
        """The middle of an element, with the left button."""
        self.value(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})")
        box = f"(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector({json.dumps(selector)})"
        x, y = self.value(box + ".getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def size(self, width, height):
        """Give the window a size in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self, path, whole=False):
        """Write what the window shows, or the whole page, as PNG."""
        told = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))


@contextmanager
def browser(profile):
    """A tab of a Chromium of its own, with a folder for its profile."""
    # ends of the pipes may be 3 or 4 themselves: move them out of the way
    low = [*os.pipe(), *os.pipe()]
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    their_in, our_out, our_in, their_out = ends
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-dev-shm-usage", *QUIET.split()]
    command += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]

    def pipes():
        os.dup2(their_in, 3)
        os.dup2(their_out, 4)

    process = subprocess.Popen(command, pass_fds=(3, 4), preexec_fn=pipes, stderr=subprocess.DEVNULL)
    for end in (their_in, their_out):
        os.close(end)
    rest = b""

    def send(message):
        os.write(our_out, json.dumps(message).encode() + b"\0")

    def receive():
        nonlocal rest
        while b"\0" not in rest:
            part = os.read(our_in, 65536)
            assert part, "the browser ended"
            rest += part
        message, _, rest = rest.partition(b"\0")
        return json.loads(message)

    tab = Tab(send, receive)
    try:
        yield tab
    finally:
        process.terminate()
        process.wait(20)
        for end in (our_out, our_in):
            os.close(end)
