"""The console in a tab of a real Chromium: go to a view, ask what it shows, press its keys, take its picture.

async with open_tab(chromium) as tab:
    page = ConsolePage(tab, port)
    await page.open("topics")
    await page.until("document.querySelector('tbody tr')")
    await page.picture("topics")
"""

import json
from pathlib import Path
from typing import Any

import trio

from tests.chromium import Browser

PICTURES = Path(__file__).parents[1] / ".output" / "console"
"""What the tests saw, for people to look at."""

HOSTILE = "<img/src=x/onerror=document.title='owned'><script>document.title='owned'</script>&lt;b&gt;".ljust(255, "x")
"""Markup that may stand in a topic and in a user's name, as long as a topic may be."""

ENOUGH_S = 20.0

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 360, "height": 780}


class ConsolePage:
    """One open console."""

    def __init__(self, tab: Browser, port: int) -> None:
        self.tab = tab
        self.port = port

    async def open(self, view: str = "") -> None:
        """Load the page anew."""
        await self.tab.screen(**DESKTOP)
        await self.tab.open("about:blank")
        await self.tab.open(f"http://127.0.0.1:{self.port}/#/{view}")

    async def connected(self, view: str = "") -> None:
        """Load the page anew and wait until it is connected."""
        await self.open(view)
        await self.until("document.body.dataset.state === 'connected'")

    async def go(self, view: str) -> None:
        """Go to another view than the present one."""
        await self.run(f"location.hash = '#/{view}'")
        await self.until(f"location.hash === '#/{view}' && document.querySelector('h1:focus')")

    async def run(self, script: str) -> Any:
        return await self.tab.run(script)

    async def until(self, condition: str) -> Any:
        """Wait until a JavaScript expression is true; fail here, and not with the whole test, where it never is."""
        with trio.fail_after(ENOUGH_S):
            return await self.tab.until(condition)

    async def shows(self, selector: str, text: str) -> None:
        """Wait until one of these elements has the text in it."""
        found = f"[...document.querySelectorAll({js(selector)})]"
        await self.until(f"{found}.some(element => element.textContent.includes({js(text)}))")

    async def texts(self, selector: str) -> list[str]:
        found: list[str] = await self.run(f"[...document.querySelectorAll({js(selector)})].map(e => e.textContent)")
        return found

    async def click(self, selector: str) -> None:
        await self.run(f"document.querySelector({js(selector)}).click()")

    async def fill(self, selector: str, text: str) -> None:
        await self.run(
            f"(() => {{ const field = document.querySelector({js(selector)}); field.value = {js(text)}; "
            "field.dispatchEvent(new Event('input')) })()"
        )

    async def focused(self) -> str:
        """What has the focus, in a word: its id, or its text."""
        found: str = await self.run("document.activeElement.id || document.activeElement.textContent.trim()")
        return found

    async def picture(self, name: str) -> None:
        """Take pictures of the view: a desktop's and a phone's, light and dark; none may be wider than its screen."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        for form, size in (("desktop", DESKTOP), ("phone", PHONE)):
            for dark in (False, True):
                await self.tab.screen(**size, dark=dark)
                await self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
                path = PICTURES / f"{name}-{form}-{'dark' if dark else 'light'}.png"
                await self.tab.look(path, **size, dark=dark)
                width = await self.run("document.documentElement.scrollWidth")
                assert width <= size["width"], f"{name} is {width} pixels wide on a {form}"
        await self.tab.screen(**DESKTOP)


def js(value: object) -> str:
    """Write a value down as JavaScript."""
    return json.dumps(value)
