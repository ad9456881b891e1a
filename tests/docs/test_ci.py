"""What CI and a contributor's first page call is there.

Truth: pyproject's oldest Python, the Makefile's targets, and the files themselves.
"""

import os
import re

import yaml

from tests.launch import CHECKOUT


def test_ci_runs_what_a_contributor_runs():
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text())
    jobs = workflow["jobs"]
    pythons = jobs["lint-and-tests"]["strategy"]["matrix"]["python"]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (CHECKOUT / "pyproject.toml").read_text())[1]
    assert pythons[0] == oldest
    assert pythons == sorted(pythons, key=lambda version: [int(part) for part in version.split(".")])
    called = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert called == [".ci/run", "make docs"]
    assert os.access(CHECKOUT / ".ci/run", os.X_OK)


def test_make_has_what_pages_name():
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md", "docs/getting_started.md", "docs/clusters.md"):
        named = set(re.findall(r"(?:^ {4}|`)make ([a-z]+)", (CHECKOUT / page).read_text(), flags=re.MULTILINE))
        assert named, page
        assert named <= targets, page


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    project = (CHECKOUT / "pyproject.toml").read_text()
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
