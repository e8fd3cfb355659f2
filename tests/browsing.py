"""What tests in a real browser share: Chromium, sizes of screens, and pages whose complaints fail the test. Screenshots go to LAWBOOK_SCREENSHOTS where that names a folder."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome") if Path(path).exists()), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium here: apt-get install chromium.")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def opened(browser, server, address="/", forgiven="404 (Not Found)", **options):
    """A page of a new reader. Anything that the browser complains of but for what is `forgiven`, or fetches from elsewhere, fails the test."""
    context = browser.new_context(base_url=server.address, **{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
    page = context.new_page()
    page.set_default_timeout(15_000)
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") and forgiven not in message.text else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith((server.address, "data:")) else None)
    page.goto(address)
    yield page
    context.close()
    assert said == []


def picture(page, name, **options):
    folder = os.environ.get("LAWBOOK_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", **options)
