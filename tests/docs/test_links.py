"""Every relative link of every page names a file or folder that is there, and a heading that it has.

Truth: the file system, and anchors as GitHub makes them of headings (small letters, no punctuation, dashes for spaces).
"""

import re

import pytest

from scripts.docs import staging
from scripts.docs.staging import CHECKOUT, links, pages

PAGES = pages()


def anchors(page):
    """The anchors of a page's headings; the second of the same words gets -1, and so on."""
    found = {}
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, flags=re.MULTILINE):
        words = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {f"{name}-{number}" if number else name for name, last in found.items() for number in range(last + 1)}


def test_links_resolve():
    broken = []
    for page in PAGES:
        for target, anchor in links(page):
            is_there = target.exists() and (not anchor or (target.suffix != ".md" or anchor in anchors(target)))
            if not is_there:
                broken.append(f"{page.relative_to(CHECKOUT)}: {target}#{anchor}")
    assert not broken, "\n".join(broken)


def test_links_are_found():
    by_page = {page.relative_to(CHECKOUT).as_posix(): list(links(page)) for page in PAGES}
    assert len(by_page["README.md"]) >= 20
    assert len(by_page["docs/architecture.md"]) >= 25
    assert sum(bool(anchor) for found in by_page.values() for _, anchor in found) >= 20


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("## On one H200", "on-one-h200"),
        ("### Text left out", "text-left-out"),
        ("## torchrun, hostfile, SLURM", "torchrun-hostfile-slurm"),
        ("## `a_b` and [c](d.md)", "a_b-and-c"),
    ],
)
def test_anchors(tmp_path, heading, anchor):
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n```\n# no heading\n```\n\n{heading}\n\n{heading}\n")
    assert anchors(page) == {"page", anchor, f"{anchor}-1"}


def test_every_page_is_reached_from_the_readme():
    """By links alone, so that none is forgotten."""
    reached, left = set(), [CHECKOUT / "README.md"]
    while left:
        page = left.pop()
        if page not in reached and page.suffix == ".md" and page.is_file():
            reached.add(page)
            left += [target for target, _ in links(page)]
    assert not [page for page in PAGES if page not in reached]


def test_the_site_has_every_page_of_docs():
    """mkdocs.yml names files that are there, and each page of docs/ but the studies, which their own page lists."""
    named = re.findall(r": (\S+\.md)$", (CHECKOUT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert [name for name in named if not (CHECKOUT / name).is_file()] == []
    assert {f"docs/{page.name}" for page in (CHECKOUT / "docs").glob("*.md")} <= set(named)


def test_what_is_staged_is_whole(tmp_path, monkeypatch):
    """Every link of a staged page leads to something that is staged too."""
    monkeypatch.setattr(staging, "STAGE", tmp_path / "pages")
    stage = staging.stage()
    copies = sorted(stage.rglob("*.md"))
    assert len(copies) == len(PAGES)
    missing = [target for copy in copies for target, _ in links(copy) if not target.exists()]
    assert missing == []


def test_code_holds_no_links(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a [b](c.md)\n\n    [d](e)\n\n```\n[f](g)\n```\n[h](i#j) [k](https://l) [m](#n)\n")
    assert list(links(page)) == [(tmp_path / "c.md", ""), (tmp_path / "i", "j"), (page, "n")]
