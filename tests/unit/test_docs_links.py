"""Every link of the pages leads to a file that is there, and to a heading that it has."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGES = sorted([*TOP.glob("*.md"), *TOP.glob("docs/*.md"), *TOP.glob("bench/*.md"), *TOP.glob("examples/*.md")])
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    return [each for each in LINK.findall(FENCED.sub("", page.read_text())) if "://" not in each]


def anchors(page: Path) -> set[str]:
    """What a page's headings are called, as the places that show Markdown call them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.replace("`", "").lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda each: str(each.relative_to(TOP)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_a_link_to_nowhere_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`: three\n[a](none.md)\n[b](#one-two-three)\n[c](#gone)\n```\n[d](code)\n```\n")
    assert links(page) == ["none.md", "#one-two-three", "#gone"]
    assert anchors(page) == {"one-two-three"}


def test_every_page_can_be_found() -> None:
    """From the README, over as many links as it takes."""
    found, left = set(), [TOP / "README.md"]
    while left:
        page = left.pop().resolve()
        if page not in found and page.suffix == ".md":
            found.add(page)
            left += [page.parent / link.partition("#")[0] for link in links(page) if link.partition("#")[0]]
    assert sorted(set(TOP.glob("docs/*.md")) - found) == []
