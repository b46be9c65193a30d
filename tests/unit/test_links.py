"""Links between the pages: the file is there, and so is the heading."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/*.md"), *ROOT.glob("examples/*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page):
    """The page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page):
    """What a page's headings can be linked to as, the way GitHub names them."""
    titles = [
        re.sub(r"[*`]", "", title).strip().lower() for title in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    ]
    return {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}


def test_there_are_pages_and_links():
    assert len(PAGES) > 10
    assert sum("#" in link for page in PAGES for link in _LINK.findall(prose(page))) > 10
    assert anchors(ROOT / "docs" / "training.md") >= {"doubt-and-validation-data", "the-folder-of-a-run"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link
