"""The folder that MkDocs builds from: the pages of docs/, those of the rooms, and every file that they link to.

MkDocs takes pages from one folder, while ours stand beside the code that they describe. Copied with their paths, their
links hold in the site as they do in the checkout.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
STAGE = CHECKOUT / "build" / "site_pages"
PASSED_OVER = {"build", "dist", "runs", "site", "wandb", "__pycache__"}
LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE = re.compile(r"^(```.*?^```|(?: {4}|\t).*?$)", re.MULTILINE | re.DOTALL)


def stage() -> Path:
    """Copy pages and what they link to into build/site_pages, which is emptied before; returns it."""
    shutil.rmtree(STAGE, ignore_errors=True)
    files = {target for file in pages() for target in linked(file) if target.is_file()} | set(pages())
    for file in sorted(files):
        copy = STAGE / file.relative_to(CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return STAGE


def pages() -> list[Path]:
    """Every Markdown file of the checkout, in the order of their paths; none of hidden folders or of what is built."""
    found = []
    for folder, folders, names in os.walk(CHECKOUT):
        folders[:] = [name for name in folders if name not in PASSED_OVER and not name.startswith(".")]
        found += [Path(folder) / name for name in names if name.endswith(".md")]
    return sorted(found)


def linked(page: Path) -> Iterator[Path]:
    """The files of the checkout that a page links to, whether they are there or not."""
    for target, _ in links(page):
        yield target


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Each relative link of a page as the file that it names and its anchor ("" where it has none)."""
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in link and not link.startswith("mailto:"):
            path, _, anchor = link.partition("#")
            yield ((page.parent / path).resolve() if path else page), anchor
