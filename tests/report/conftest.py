"""A real headless Chromium, Debian's, without a network; tests that need it skip where it is not installed."""

import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is installed (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        # A test machine often runs as root in a container, where Chromium's sandbox cannot start.
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Watched:
    """A page that remembers what it must not do: requests other than its own file, and lines on the console."""

    def __init__(self, context):
        self.page = context.new_page()
        self.requests: list[str] = []
        self.console: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))

    def open(self, url: str):
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready=true]", state="attached")
        return self.page

    def left_the_page(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]


@pytest.fixture
def watched(browser):
    """Opens an address in a fresh, offline context; afterwards nothing was asked of the network, and no error told."""
    contexts, pages = [], []

    def start(**options) -> Watched:
        context = browser.new_context(offline=True, accept_downloads=True, **options)
        contexts.append(context)
        pages.append(Watched(context))
        return pages[-1]

    yield start
    for one in pages:
        assert one.console == []
        assert one.left_the_page() == []
    for context in contexts:
        context.close()
