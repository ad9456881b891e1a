"""A tracker is refused before a run begins, or it costs nothing but its view; every tracker shows the same names.

TensorBoard's own reader is the truth of what it is given; where it is not installed, those tests are skipped.
Breaks that turn this file red: errors of wandb that end the training, a mode that the environment contradicts.
"""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bert_lamb.errors import UserError
from bert_lamb.outputs.metrics import FIELDS
from bert_lamb.train.tracker import LAYOUT, check_tracker, names_of, open_tracker
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

    def log(numbers):
        if numbers["total_step"] == 2:
            raise BrokenPipeError("the service has gone")
        logged.append(numbers["total_step"])

    run = SimpleNamespace(log=log, finish=raising("never reached"), define_metric=lambda *_, **__: None)
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
    late = SimpleNamespace(finish=raising("late"), define_metric=lambda *_, **__: None)
    for functions in ({"init": raising("no\nnetwork")}, {"init": lambda **_: late}):
        stand_in(monkeypatch, **functions)
        open_tracker(name="wandb", **of_run).finish()
    assert [line.split("; ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "the tracker failed and is no longer used: RuntimeError: no network",
        "the tracker failed and is no longer used: RuntimeError: late",
    ]


STEP = {
    "kind": "step",
    "phase": "phase2",
    "step": 3,
    "lr": 1e-3,
    "loss": 6.5,
    "trust_ratio_min": 0.25,
    "is_applied": True,
    "seconds": 2.0,
    "optimizer_share": 0.125,
    "peak_rss_bytes": 2**30,
}
NAMED = {  # of that line, written out by hand
    "train/lr": 1e-3,
    "train/loss": 6.5,
    "trust_ratio/min": 0.25,
    "train/is_applied": 1.0,
    "speed/seconds": 2.0,
    "time/optimizer_share": 0.125,
    "memory/peak_rss_bytes": 2.0**30,
    "phase/step": 3.0,
}
HELDOUT = {"kind": "heldout", "phase": "phase2", "step": 3, "mlm_loss": 5.5, "num_instances": 10}
RATIOS = {"kind": "trust_ratios", "phase": "phase2", "step": 3, "trust_ratio": {"w": 1.0}}


def test_names_have_sections():
    assert names_of(STEP) == NAMED
    assert names_of(HELDOUT) == {"heldout/mlm_loss": 5.5, "heldout/num_instances": 10.0}
    assert names_of(RATIOS) == {}


def test_every_number_of_every_line_has_a_name_of_its_own():
    for kind, fields in FIELDS.items():
        numbers = [name for name, field in fields.items() if field.kind != "by_parameter"]
        names = names_of({"kind": kind, "step": 1, **dict.fromkeys(numbers, 1.0)})
        assert len(names) == len(numbers) + (kind == "step")
        assert all(name.count("/") == 1 for name in names)


def test_wandb_has_one_axis_which_may_go_back(monkeypatch, tmp_path):
    logged, defined = [], []
    run = SimpleNamespace(
        log=logged.append, finish=lambda: None, define_metric=lambda name, **of_it: defined.append((name, of_it))
    )
    stand_in(monkeypatch, init=lambda **_: run)
    tracker = open_tracker(name="wandb", project="p", mode="offline", run_dir=tmp_path, config={})
    tracker.log(STEP, total_step=353)
    tracker.log(RATIOS, total_step=353)
    tracker.log(HELDOUT, total_step=340)
    assert defined == [("total_step", {}), ("*", {"step_metric": "total_step"})]
    assert logged == [
        NAMED | {"total_step": 353},
        {"heldout/mlm_loss": 5.5, "heldout/num_instances": 10.0, "total_step": 340},
    ]


def test_tensorboard_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"fix: pip install 'bert-lamb\[tensorboard\]', or set tracker=none"):
        check_tracker(name="tensorboard", mode="offline")


def test_tensorboard_reads_the_same_names(tmp_path):
    """A run killed after step 4 and resumed after step 2: what was done again is there once, as it was in the end."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    of_run = {"project": "p", "mode": "offline", "run_dir": tmp_path, "config": {"seed": 42}}
    check_tracker(name="tensorboard", mode="offline")
    for steps, loss in (((1, 2, 3, 4), 1.0), ((3, 4, 5), 2.0)):
        tracker = open_tracker(name="tensorboard", **of_run)
        if steps[0] > 1:
            tracker.log({"kind": "resume", "phase": "one", "step": 2, "world_size": 1}, total_step=2)
        for step in steps:
            tracker.log(STEP | {"step": step, "loss": loss + step}, total_step=step)
        tracker.log(RATIOS, total_step=steps[-1])
        tracker.finish()
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == NAMED.keys() | {"phase/world_size"}
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [
        *((1, 2.0), (2, 3.0)),
        *((3, 5.0), (4, 6.0), (5, 7.0)),
    ]
    assert "custom_scalars__config__" in tags["tensors"]
    assert "configuration/text_summary" in tags["tensors"]


def test_the_layout_asks_for_names_that_there_are():
    there = set()
    for kind, fields in FIELDS.items():
        there |= names_of({"kind": kind, "step": 1, **dict.fromkeys(fields, 1.0)}).keys()
    asked = [name for panels in LAYOUT.values() for _, names in panels.values() for name in names]
    assert all(any(re.fullmatch(name, one) for one in there) for name in asked)
