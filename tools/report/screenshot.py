"""Take the documentation's pictures of the report.

    make quickstart
    python tools/report/screenshot.py out/quickstart/report.html

Needs Chromium (Debian: apt-get install chromium) and Playwright. Writes docs/images/report.png, the page's top, and
docs/images/report-sample.png, a sample with its neighbours.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def main(page_file: str) -> None:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 1180, "height": 1560}, color_scheme="light")
        page = context.new_page()
        page.goto(Path(page_file).resolve().as_uri())
        page.wait_for_selector("html[data-ready=true]", state="attached")
        save(page.screenshot(), "report.png")
        page.set_viewport_size({"width": 1180, "height": 860})
        page.locator("#gallery .item").first.click()
        page.locator("#detail .neighbour").first.wait_for()
        save(page.screenshot(), "report-sample.png")
        browser.close()


def save(png: bytes, name: str) -> None:
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
