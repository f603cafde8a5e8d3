"""The pages of documentation: their links lead somewhere, and the code names pages that exist."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
CODE = sorted(
    [
        *(ROOT / "yolo_backend").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / name for name in ("Makefile", "Dockerfile", "docker-compose.yml", "pyproject.toml")),
    ]
)
_LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
_FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
_MOST_MOVIE_BYTES = 2_000_000


def _name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _text(page: Path) -> str:
    """The page without blocks of code, in which there are no links."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


@cache
def _anchors(page: Path) -> frozenset[str]:
    """What GitHub makes of a page's headings."""
    times: Counter[str] = Counter()
    anchors: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", _text(page), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        anchors.add(f"{anchor}-{times[anchor]}" if times[anchor] else anchor)
        times[anchor] += 1
    return frozenset(anchors)


def dead_links(page: Path) -> list[str]:
    """The links of a page to files that aren't in the repository, and to headings that aren't in their page."""
    dead = []
    for link in ("".join(found) for found in _LINK.findall(_text(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=_name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    """Files, images, headings, and the second of two headings of one name."""
    (tmp_path / "other.md").write_text("# A `b`, (c)\n## Twice\n## Twice\n", encoding="utf-8")
    good = "[1](other.md) [2](other.md#a-b-c) [3](other.md#twice-1) [4](#own) [5](https://example.org/x.md)\n## Own\n"
    bad = '[6](gone.md) [7](other.md#gone) [8](other.md#twice-2) [9](#gone) <img src="gone.png" width="1">\n'
    page = tmp_path / "page.md"
    page.write_text(f"{good}{bad}```\n[10](gone.md)\n```\n", encoding="utf-8")
    assert dead_links(page) == ["gone.md", "other.md#gone", "other.md#twice-2", "#gone", "gone.png"]


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / "".join(link).partition("#")[0]).resolve() for link in _LINK.findall(_text(index))}
    pages = {page for page in PAGES if page.parent == index.parent and page != index}
    assert {_name_of(page) for page in pages - linked} == set()


def test_the_code_names_pages_that_exist() -> None:
    named = {
        (_name_of(path), page)
        for path in CODE
        for page in re.findall(r"\bdocs/[\w./-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert {(where, page) for where, page in named if not (ROOT / page).is_file()} == set()


def test_the_words_of_the_house_are_those_of_its_code() -> None:
    table = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").partition("\n## Words\n")[2].partition("\n## ")[0]
    classes = set(re.findall(r"`(_?[A-Z]\w+)`", table))
    code = "\n".join(path.read_text(encoding="utf-8") for path in CODE if path.is_relative_to(ROOT / "yolo_backend"))
    assert "Trouble" in classes
    assert classes - set(re.findall(r"\b(?:class|import \w+ as) (\w+)", code)) == set()


def test_the_moving_picture_is_small_enough_for_a_first_screen() -> None:
    assert (ROOT / "docs" / "images" / "predictions.gif").stat().st_size <= _MOST_MOVIE_BYTES
