"""A real browser for pages, driven without a window."""

import base64
import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """Chromium without a window, driven through its debugging pipe with real keys and clicks."""

    def __init__(self, profile):
        # Chromium reads commands from descriptor 3 and answers on 4; a shell puts them there.
        commands, self.writer = os.pipe()
        self.reader, answers = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe"
        flags += " --disable-background-networking --disable-component-update --disable-sync"
        flags += f" --hide-scrollbars --user-data-dir={profile} about:blank"
        self.process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$@" 3<&{commands} 4>&{answers}',
                "bash",
                CHROMIUM,
                *flags.split(),
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self.number, self.session, self.buffer, self.events = 0, {}, b"", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def receive(self):
        while b"\0" not in self.buffer:
            part = os.read(self.reader, 1 << 20)
            assert part, "chromium has gone away"
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, **self.session}
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, uri, width, *, dark=False):
        self.events.clear()
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=uri)
        while not self.seen("Page.loadEventFired"):
            self.events.append(self.receive())

    def seen(self, *methods):
        return [event for event in self.events if event.get("method") in methods]

    @property
    def complaints(self):
        """What a reader would find in the console."""
        return self.seen("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")

    @property
    def requests(self):
        return [
            event["params"]["request"]["url"] for event in self.seen("Network.requestWillBeSent")
        ]

    def run(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def becomes_true(self, script, *, within=10):
        """Whether a script gives true within some seconds; for what events bring about."""
        deadline = time.monotonic() + within
        while not (true := self.run(script)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return true

    def press(self, key, *, text=""):
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38}
        codes |= {"ArrowRight": 39, "ArrowDown": 40}
        shared = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **shared)
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def click(self, selector, index=0):
        place = self.run(
            f"(() => {{ const e = document.querySelectorAll({json.dumps(selector)})[{index}];"
            " e.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **mouse)

    def screenshot(self):
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self):
        self.call("Browser.close")
        self.process.wait(30)
        os.close(self.writer)
        os.close(self.reader)
