"""A headless Chromium, driven over its DevTools protocol: open a page, ask it things, look at it.

Source: https://chromedevtools.github.io/devtools-protocol/.
"""

import base64
import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)

MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Browser:
    """One tab. `complaints` are the errors, warnings and policy violations that its pages caused."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._number = 0
        self._session: str | None = None
        self._target = ""
        self.complaints: list[str] = []

    async def attach(self) -> None:
        target = await self._command("Target.createTarget", url="about:blank")
        attached = await self._command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self._target = target["targetId"]
        for domain in ("Page", "Runtime", "Log"):
            await self._command(f"{domain}.enable")

    async def close(self) -> None:
        self._session = None
        await self._command("Target.closeTarget", targetId=self._target)

    async def open(self, url: str) -> None:
        await self._command("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """Evaluate JavaScript in the page and return its (awaited) value."""
        answer = await self._command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Wait until a JavaScript expression is true; the browser's own timers do the waiting."""
        return await self.run(
            f"new Promise(done => {{ const look = () => {{ const value = ({condition}); "
            "value ? done(value) : setTimeout(look, 10) }; look() })"
        )

    async def type_into(self, element_id: str, text: str) -> None:
        await self.run(f"document.getElementById({json.dumps(element_id)}).value = {json.dumps(text)}")

    async def press(self, element_id: str) -> None:
        await self.run(f"document.getElementById({json.dumps(element_id)}).click()")

    async def freeze(self) -> None:
        """Put the page to sleep as a browser does with a page in the background: nothing in it runs."""
        await self._command("Page.setWebLifecycleState", state="frozen")

    async def thaw(self) -> None:
        """Wake it up, and look at it: it was hidden, and a hidden page's timers fire once a second."""
        await self._command("Page.setWebLifecycleState", state="active")
        await self._command("Emulation.setFocusEmulationEnabled", enabled=True)

    async def key(self, name: str, text: str = "") -> None:
        """Press and let go a key, by its name: "Tab", "Enter", "ArrowDown"; `text` is what it types."""
        number = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37}.get(name, 0)
        key = {"key": name, "code": name, "windowsVirtualKeyCode": number}
        await self._command("Input.dispatchKeyEvent", type="keyDown", text=text, **key)
        await self._command("Input.dispatchKeyEvent", type="keyUp", **key)

    async def point(self, x: float, y: float) -> None:
        """Move the mouse there."""
        await self._command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def screen(self, *, width: int = 1200, height: int = 800, dark: bool = False) -> None:
        """Show pages as a screen of this size, and a system with these colours, does."""
        await self._command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self._command("Emulation.setEmulatedMedia", features=[scheme])

    async def look(self, path: Path, *, width: int = 1200, height: int = 800, dark: bool = False) -> None:
        """Take a picture of the page as a screen of this size shows it."""
        await self.screen(width=width, height=height, dark=dark)
        picture = await self._command("Page.captureScreenshot", format="png", optimizeForSpeed=True)
        await trio.Path(path).write_bytes(base64.b64decode(picture["data"]))

    async def _command(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        await self._connection.send_message(json.dumps(command))
        while True:
            message: dict[str, Any] = json.loads(await self._connection.get_message())
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._listen(message)

    def _listen(self, event: dict[str, Any]) -> None:
        if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] in ("warning", "error"):
            self.complaints.append(event["params"]["entry"]["text"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(str(event["params"]["exceptionDetails"]))


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start a Chromium of our own with an empty profile; end it, and it alone, afterwards."""
    assert EXECUTABLE, "Chromium is needed: apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [EXECUTABLE, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = await trio.lowlevel.open_process(command, stderr=-1, start_new_session=True)
        try:
            async with open_websocket_url(await _where(process), max_message_size=MAX_ANSWER_BYTES) as connection:
                browser = Browser(connection)
                await browser.attach()
                yield browser
                await connection.send_message('{"id":0,"method":"Browser.close"}')
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await _end(process)


@contextmanager
def running_chromium() -> Iterator[str]:
    """Run a Chromium for several tests, each with a tab of its own; where its DevTools listen."""
    assert EXECUTABLE, "Chromium is needed: apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [EXECUTABLE, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    if b"DevTools listening on " in line:
                        yield line.rpartition(b" ")[2].strip().decode()
                        break
            finally:
                process.kill()


@asynccontextmanager
async def open_tab(devtools_url: str) -> AsyncIterator[Browser]:
    """Open a tab of a running Chromium, and close it afterwards."""
    async with open_websocket_url(devtools_url, max_message_size=MAX_ANSWER_BYTES) as connection:
        browser = Browser(connection)
        await browser.attach()
        try:
            yield browser
        finally:
            with trio.move_on_after(5, shield=True):
                await browser.close()


async def _where(process: trio.Process) -> str:
    """Read where the DevTools listen, and leave the rest of what Chromium says unread."""
    assert process.stderr is not None
    said = b""
    while b"DevTools listening on " not in said or not said.rpartition(b"DevTools listening on ")[2].endswith(b"\n"):
        piece = await process.stderr.receive_some()
        assert piece, said.decode(errors="replace")
        said += piece
    return said.rpartition(b"DevTools listening on ")[2].split()[0].decode()


async def _end(process: trio.Process) -> None:
    with trio.move_on_after(2):
        await process.wait()
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        await process.wait()
