"""What a browser shows of a page, as a picture."""

import shutil
from pathlib import Path

from selenium import webdriver

#: Takes the buttons of plots away, and lines that only a click on the legend shows.
_TIDY = """
document.querySelectorAll(".modebar").forEach(bar => bar.remove());
document.querySelectorAll(".plotly-graph-div").forEach(plot => Plotly.deleteTraces(plot,
  plot.data.flatMap((trace, i) => trace.visible === "legendonly" ? [i] : [])));
"""
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars")


def photograph(
    page: Path, png: Path, selector: str = ".plotly-graph-div", size: tuple[int, int] = (1220, 3200)
) -> None:
    """Write a picture of one element of a page, as one sees it without touching anything.

    Args:
        page: an HTML file.
        png: the picture.
        selector: CSS selector of the element.
        size: width and height of the window, in pixels.
    """
    options = webdriver.ChromeOptions()
    for flag in (*_FLAGS, f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.get(page.as_uri())
        browser.execute_script(_TIDY)
        png.write_bytes(browser.find_element("css selector", selector).screenshot_as_png)
    finally:
        browser.quit()
