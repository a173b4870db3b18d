"""Pictures of plots, taken by a browser."""

import shutil
from pathlib import Path

from selenium import webdriver

#: Remove the buttons of plots, and lines that are hidden until a click on the legend.
_TIDY = """
document.querySelectorAll(".modebar").forEach(bar => bar.remove());
document.querySelectorAll(".plotly-graph-div").forEach(plot => Plotly.deleteTraces(plot,
  plot.data.flatMap((trace, i) => trace.visible === "legendonly" ? [i] : [])));
"""
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"),
    "--window-size=1220,3200",  # in pixels; a plot beyond its edge would be cut off
)


def photograph(page: Path, png: Path, selector: str = ".plotly-graph-div") -> None:
    """Write a picture of one plot of a page.

    Args:
        page: an HTML file.
        png: the picture.
        selector: CSS selector of the plot.
    """
    options = webdriver.ChromeOptions()
    for flag in _FLAGS:
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
