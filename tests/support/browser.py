"""A headless Chromium for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver


def require_browser() -> tuple[str, str]:
    """The paths of the browser and of its driver; skips the test where they are missing."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found:
        pytest.skip("chromium and chromedriver (Debian: chromium-driver) are not installed")
    return found


@contextmanager
def headless() -> Iterator[webdriver.Chrome]:
    """A browser with a window of 1400 x 1000 and no network beyond this machine."""
    program, driver = require_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # root has no sandbox in a container; /dev/shm is small there
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument("--window-size=1400,1000")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_page_load_timeout(240)
    browser.set_script_timeout(120)
    browser.implicitly_wait(30)
    try:
        yield browser
    finally:
        browser.quit()


def opened(browser: webdriver.Chrome, page: Path) -> float:
    """Open a page. -> seconds of the processor that its main thread took."""
    browser.get("about:blank")
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    before = _busy(browser)
    browser.get(page.as_uri())
    return _busy(browser) - before


def _busy(browser: webdriver.Chrome) -> float:
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(float(m["value"]) for m in metrics if m["name"] == "ThreadTime")


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the page has written to the console since the last call."""
    entries: list[dict[str, Any]] = browser.get_log("browser")
    return [str(entry["message"]) for entry in entries]
