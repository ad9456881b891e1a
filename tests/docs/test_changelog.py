"""CHANGELOG.md has the form of Keep a Changelog, and its newest release is the version that everything else names.

Truth: the package's own files, read as text, toml and yaml.
Breaks that turn this file red: a version raised in one place alone, a section of another name, an entry without a why.
"""

import re
import tomllib
from datetime import date

import pytest
import yaml

import bert_lamb
from tests.launch import CHECKOUT

SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]  # of keepachangelog.com, in this order
TITLE = re.compile(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d{2}-\d{2})$")
TEXT = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## .*$", TEXT, flags=re.MULTILINE)


def test_the_first_release_is_the_version_that_is_named_everywhere():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert HEADINGS[0] == "## Unreleased"
    newest, released = TITLE.match(HEADINGS[1]).groups()
    assert {newest} == {bert_lamb.__version__, project["version"], citation["version"]}
    assert date.fromisoformat(released) == citation["date-released"]


def test_releases_go_back_in_time():
    found = [TITLE.match(heading).groups() for heading in HEADINGS[1:]]
    numbers = [tuple(map(int, version.split("."))) for version, _ in found]
    assert numbers == sorted(set(numbers), reverse=True)
    assert [day for _, day in found] == sorted((day for _, day in found), reverse=True)


@pytest.mark.parametrize("release", re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:], ids=lambda text: text.split()[0])
def test_sections_are_the_known_ones_and_entries_are_sentences(release):
    sections = re.findall(r"^### (.*)$", release, flags=re.MULTILINE)
    assert sections == [name for name in SECTIONS if name in sections]
    lines = [line for line in release.splitlines()[1:] if line and not line.startswith("### ")]
    assert [line for line in lines if not re.fullmatch(r"- .*\.", line)] == [], "an entry is one line, and a sentence"
    assert [line for line in lines if not re.search(r"\b(because|since|so that|where|what)\b|: ", line)] == [], "why?"
