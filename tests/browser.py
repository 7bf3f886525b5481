"""Pages opened in headless Chromium, as a reader would see them."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
)


@contextmanager
def chromium() -> Iterator[Chrome]:
    """Start a browser with a new profile; the test is skipped where none is installed."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium found: needs Debian's packages chromium and chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        chrome = Chrome(options=options, service=Service(driver))
        try:
            yield chrome
        finally:
            chrome.quit()


def visit(chrome: Chrome, path: Path, scheme: str = "light", width: int = 1100, height: int = 900) -> list[str]:
    """Open a page in a colour scheme and a window of this size; return every address it asked for."""
    chrome.get("about:blank")
    chrome.get_log("browser"), chrome.get_log("performance")  # what went before is not the page's
    _size(chrome, width, height)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    chrome.get(path.as_uri())
    messages = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def screenshot(chrome: Chrome, path: Path) -> None:
    """Save the whole page, not only what fits the window."""
    width, height = chrome.execute_script("return [window.innerWidth, document.documentElement.scrollHeight]")
    _size(chrome, width, height)
    path.write_bytes(chrome.get_screenshot_as_png())


def _size(chrome: Chrome, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
