"""What the benches share: rounds, tables, and surroundings that name no place on this machine.

Breaks that turn this file red: candidates sampled one after another instead of in rounds, a column not aligned, a path
of the checkout in a result, a library that is not installed given a version, a commit without its mark although a file
of a bench differs from it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "scripts" / "bench"))
from kit import surroundings as kit_surroundings
from kit.results import write_result
from kit.rounds import in_turns
from kit.surroundings import surroundings
from kit.table import Column, number, table


def test_every_round_measures_everything_once():
    calls = []

    def measure(name):
        calls.append(name)
        return len(calls)

    samples = in_turns([lambda: measure("a"), lambda: measure("b")], num_rounds=3)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert samples == [[1, 3, 5], [2, 4, 6]]


def test_table_is_aligned():
    columns = (
        Column("what", lambda record: record[0], is_text=True),
        Column("ms", lambda record: number(record[1], ",.1f")),
        Column("share", lambda record: number(record[2], ".0%")),
    )
    assert table(columns, [("a", 1234.56, 0.5), ("longer", None, 1.0)]).splitlines() == [
        "what         ms  share",
        "a       1,234.6    50%",
        "longer        -   100%",
    ]


def test_result_makes_its_folder(tmp_path):
    write_result(tmp_path / "new" / "result.json", {"ms": [1.5]})
    assert json.loads((tmp_path / "new" / "result.json").read_text()) == {"ms": [1.5]}


def test_surroundings_are_relative_to_the_checkout(monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{CHECKOUT}/scripts/bench/loader.py", "--source", f"text={CHECKOUT}/a b.txt"])
    settings = argparse.Namespace(
        out=CHECKOUT / "r.json", source=[f"text={CHECKOUT}/a.txt", "text=/home/me/b c.txt"], dump=Path("/d/e")
    )
    found = surroundings(settings, packages=("numpy", "no-such-package"))
    assert found["command"] == "python scripts/bench/loader.py --source 'text=a b.txt'"
    assert found["settings"] == {"out": "r.json", "source": ["text=a.txt", "text=b c.txt"], "dump": "e"}
    assert found["versions"]["numpy"]
    assert found["versions"]["no-such-package"] is None
    assert str(CHECKOUT) not in json.dumps(found)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a file of each kind, all committed."""
    for name in ("bert_lamb/a.py", "scripts/bench/results/r.json", "scripts/bench/lamb_step/timing.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    for command in ("init -q", "add .", "-c user.name=n -c user.email=e commit -q -m first"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    monkeypatch.setattr(kit_surroundings, "CHECKOUT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "mark"),
    [
        ("scripts/bench/results/r.json", ""),
        ("bert_lamb/a.py", "+"),
        ("scripts/bench/lamb_step/timing.py", "+"),
    ],
)
def test_commit_is_marked_if_what_is_measured_differs_from_it(checkout, changed, mark):
    (checkout / changed).write_text("changed")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert surroundings(argparse.Namespace(), packages=())["commit"] == head.strip() + mark
