"""A tracker is refused before a run begins, or it costs nothing but its view.

Breaks that turn this file red: errors of wandb that end the training, a mode that the environment contradicts.
"""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bert_lamb.errors import UserError
from bert_lamb.train.tracker import check_tracker, open_tracker
from tests.launch import CHECKOUT


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def stand_in(monkeypatch, **functions):
    """A module of that name with these functions alone."""
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(**functions))


def raising(message):
    def function(*args, **kwargs):
        raise RuntimeError(message)

    return function


def test_no_login_is_refused_before_anything_is_written(tmp_path):
    """The wandb that is installed, without a key and without a terminal."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    words = ["recipe=demo", "shards=s", f"run_dir={tmp_path}/run", "tracker=wandb", "tracker.mode=online"]
    ended = subprocess.run(
        [sys.executable, "-m", "bert_lamb", "pretrain", *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**without, "HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "PYTHONPATH": str(CHECKOUT)},
    )
    assert ended.returncode == 2
    assert "found wandb that refuses tracker.mode=online: UsageError: No API key configured" in ended.stderr
    assert "fix: call wandb login or set WANDB_API_KEY, or set tracker.mode=offline" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"login": raising("no route to host")}, "refuses tracker.mode=online: RuntimeError: no route to host"),
        ({"login": lambda **_: False}, "nobody is logged in"),
        ({}, "found wandb that cannot be imported (AttributeError"),  # a folder called wandb
    ],
)
def test_what_is_refused(monkeypatch, functions, message):
    stand_in(monkeypatch, **functions)
    with pytest.raises(UserError) as error:
        check_tracker(name="wandb", mode="online")
    assert message in str(error.value)


def test_wandb_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="fix: pip install wandb, or set tracker=none"):
        check_tracker(name="wandb", mode="offline")
    check_tracker(name="none", mode="online")


@pytest.mark.parametrize(
    ("name", "value", "mode", "is_right"),
    [
        ("WANDB_MODE", "offline", "online", False),
        ("WANDB_MODE", "online", "offline", False),
        ("WANDB_MODE", "disabled", "offline", False),
        ("WANDB_DISABLED", "true", "offline", False),
        ("WANDB_MODE", "dryrun", "offline", True),
        ("WANDB_MODE", "OFFLINE", "offline", True),
        ("WANDB_DISABLED", "true", "disabled", True),
        ("WANDB_DISABLED", "false", "online", True),
    ],
)
def test_the_environment_has_another_mode(monkeypatch, name, value, mode, is_right):
    stand_in(monkeypatch, login=lambda **_: True)
    monkeypatch.setenv(name, value)
    if is_right:
        check_tracker(name="wandb", mode=mode)
        return
    with pytest.raises(UserError, match=f"found tracker.mode={mode}, and '.*' in the environment"):
        check_tracker(name="wandb", mode=mode)


def test_a_tracker_that_fails_is_left_alone(monkeypatch, tmp_path, capsys):
    """In the midst, at the end, and where it never begins; said once."""
    logged = []

    def log(numbers, step):
        if step == 2:
            raise BrokenPipeError("the service has gone")
        logged.append(step)

    run = SimpleNamespace(log=log, finish=raising("never reached"))
    stand_in(monkeypatch, init=lambda **_: run)
    of_run = {"project": "p", "mode": "offline", "run_dir": tmp_path, "config": {}}
    tracker = open_tracker(name="wandb", **of_run)
    for step in (1, 2, 3):
        tracker.log({"kind": "step", "loss": 1.0}, total_step=step)
    tracker.finish()
    assert logged == [1]
    said = (
        "the tracker failed and is no longer used: BrokenPipeError: the service has gone; metrics.jsonl has everything"
    )
    assert capsys.readouterr().err == f"{said}\n"
    for functions in ({"init": raising("no\nnetwork")}, {"init": lambda **_: SimpleNamespace(finish=raising("late"))}):
        stand_in(monkeypatch, **functions)
        open_tracker(name="wandb", **of_run).finish()
    assert [line.split("; ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "the tracker failed and is no longer used: RuntimeError: no network",
        "the tracker failed and is no longer used: RuntimeError: late",
    ]
