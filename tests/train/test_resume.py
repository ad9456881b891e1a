"""A run continues from its newest whole checkpoint, and says which it passed over and why.

Truth: the folders as they were saved, damaged one file at a time. Two ranks are threads (ranks_in_threads.py).
"""

import json
import os
import shutil

import pytest
import torch

from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.outputs.metrics import forget_metrics_after
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.guards import SkippedSteps
from bert_lamb.train.resume import newest_whole
from tests.checkpoint.test_checkpoint import edit_meta, save_two_ranks
from tests.train.ranks_in_threads import Ranks

STAGES = ["phase1", "another"]  # not in the order of the alphabet
ALONE = Process(0, 0, 1, torch.device("cpu"))
FILES = ["checkpoint.json", "rank-00000-of-00002.safetensors", "rank-00001-of-00002.safetensors"]


def flip(at):
    def damage(file):
        content = bytearray(file.read_bytes())
        content[at(len(content))] ^= 1
        file.write_bytes(content)

    return damage


DAMAGES = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-2]),
    "extended": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "flipped in the length of the header": flip(lambda size: 0),
    "flipped in the header": flip(lambda size: 20),
    "flipped in the middle": flip(lambda size: size // 2),
    "flipped at the end": flip(lambda size: size - 3),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a link to nothing": lambda file: (file.unlink(), file.symlink_to("nothing")),
}


def save(run, phase, step, **about):
    total_step = step + 10 * STAGES.index(phase) if phase in STAGES else step
    folder = run.checkpoint_dir(phase, step)
    return save_two_ranks(folder, Position(phase, step, step), **{"total_step": total_step, **about})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = RunDir(tmp_path_factory.mktemp("run"))
    for phase, step in (("phase1", 8), ("phase1", 10), ("another", 2), ("another", 4)):
        save(run, phase, step)
    return run.path


@pytest.fixture
def run(saved, tmp_path):
    return RunDir(shutil.copytree(saved, tmp_path / "run"))


def names(run):
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damaged_file_and_the_one_before_is_taken(run, capsys, file, damage):
    DAMAGES[damage](run.checkpoint_dir("another", 4) / file)
    found = newest_whole(run, STAGES, ALONE)
    assert found.position == Position("another", 2, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resume   passed over another-0000004, now another-0000004.damaged: ")
    assert file in line
    assert names(run) == ["another-0000002", "another-0000004.damaged", "phase1-0000008", "phase1-0000010"]


def test_a_whole_one_is_taken_without_a_word(run, capsys):
    before = names(run)
    assert newest_whole(run, STAGES, ALONE).position == Position("another", 4, 4)
    assert capsys.readouterr().err == ""
    assert names(run) == before


def test_several_are_passed_over_back_into_the_phase_before(run, capsys):
    for phase, step in (("another", 4), ("another", 2), ("phase1", 10)):
        DAMAGES["flipped at the end"](run.checkpoint_dir(phase, step) / FILES[1])
    assert newest_whole(run, STAGES, ALONE).position == Position("phase1", 8, 8)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[3] for line in lines] == ["another-0000004,", "another-0000002,", "phase1-0000010,"]
    assert RunDir(run.path).checkpoint("latest").name == "phase1-0000008"


def test_none_is_whole(run):
    for folder in run.checkpoints():
        DAMAGES["truncated"](folder / FILES[2])
    before = names(run)
    with pytest.raises(UserError, match="no whole checkpoint in") as refusal:
        newest_whole(run, STAGES, ALONE)
    text = str(refusal.value)
    assert "\n" not in text
    assert [name in text for name in before] == [True] * 4
    assert names(run) == before
    assert newest_whole(RunDir(run.path / "nothing"), STAGES, ALONE) is None


def test_what_another_version_wrote_is_not_passed_over(run):
    edit_meta(run.checkpoint_dir("another", 4), format_version=4)
    before = names(run)
    with pytest.raises(UserError, match=r"format version 4 in .*another-0000004"):
        newest_whole(run, STAGES, ALONE)
    assert names(run) == before


def test_a_copy_under_another_name_is_passed_over(run, capsys):
    shutil.copytree(run.checkpoint_dir("phase1", 8), run.checkpoint_dir("another", 6))
    assert newest_whole(run, STAGES, ALONE).position == Position("another", 4, 4)
    assert "another-0000006.damaged: the checkpoint of phase1 step 8 under another name" in capsys.readouterr().err


@pytest.mark.parametrize("file", FILES)
def test_ranks_agree_though_each_hashes_its_share(run, monkeypatch, capsys, file):
    DAMAGES["flipped at the end"](run.checkpoint_dir("another", 4) / file)
    found = Ranks(monkeypatch, 3).run(lambda process: newest_whole(RunDir(run.path), STAGES, process).position)
    assert found == [Position("another", 2, 2)] * 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_ranks_refuse_together(run, monkeypatch):
    for folder in run.checkpoints():
        DAMAGES["flipped at the end"](folder / FILES[1])
    found = Ranks(monkeypatch, 2).run(lambda process: newest_whole(RunDir(run.path), STAGES, process))
    assert [type(error) for error in found] == [UserError] * 2
    assert len({str(error) for error in found}) == 1


def test_the_damaged_one_goes_when_its_step_is_saved_again(run):
    DAMAGES["empty"](run.checkpoint_dir("another", 4) / FILES[0])
    newest_whole(run, STAGES, ALONE)
    run.forget_damaged("another", 3)
    run.forget_damaged("phase1", 10)
    assert "another-0000004.damaged" in names(run)
    save(run, "another", 4)
    run.forget_damaged("another", 4)
    assert names(run) == ["another-0000002", "another-0000004", "phase1-0000008", "phase1-0000010"]
    assert newest_whole(run, STAGES, ALONE).position == Position("another", 4, 4)


def test_metrics_of_what_is_done_again_are_dropped(tmp_path):
    """Back into the phase before: every line of the later phase, and of the earlier one those after the step."""
    file = tmp_path / "metrics.jsonl"
    lines = [(phase, kind, step) for phase in STAGES for kind, step in (("phase_start", 0), ("step", 8), ("step", 10))]
    lines.insert(3, ("phase1", "phase_end", 10))
    file.write_text("".join(json.dumps({"kind": k, "phase": p, "step": s}) + "\n" for p, k, s in lines) + '{"kin')
    forget_metrics_after(file, finished_phases=set(), phase="phase1", step=8)
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(r["phase"], r["kind"], r["step"]) for r in kept] == lines[:2]


def test_leftovers_go_and_nothing_else(run):
    """Of steps that are never met again; not what has a stranger's file, another name, or is a file itself."""
    folder = run.path / "checkpoints"
    for name, content in {
        "phase1-0000009.partial": ["rank-00000-of-00002.safetensors", "rank-00001-of-00002.json.partial"],
        "another-0000077.partial": ["checkpoint.json"],
        "phase1-0000007.partial": [],
        "phase1-0000005.partial": ["rank-00000-of-00002.safetensors", "thesis.tex"],
        "notes.partial": ["rank-00000-of-00002.safetensors"],
    }.items():
        (folder / name).mkdir()
        for file in content:
            (folder / name / file).write_text("x")
    (folder / "phase1-0000006.partial").write_text("a file")
    before = names(run)
    run.remove_leftovers()
    gone = {"phase1-0000009.partial", "another-0000077.partial", "phase1-0000007.partial"}
    assert names(run) == sorted(set(before) - gone)
    assert len(os.listdir(folder / "phase1-0000005.partial")) == 2
    assert Checkpoint(run.checkpoint("latest")).position == Position("another", 4, 4)


def test_a_resumed_stage_may_end_with_a_skipped_step():
    """It has applied steps, before this process began; a stage that never has is refused."""
    SkippedSteps("phase1", has_applied=True).watch(9, is_applied=False, is_last=True)
    with pytest.raises(UserError, match=r"gradient that is not finite \(phase1, step 9\)"):
        SkippedSteps("phase1").watch(9, is_applied=False, is_last=True)


def test_what_is_kept(tmp_path):
    """By steps the newest two, by the clock the newest, multiples of keep_every for ever; a damaged one is no harm."""
    run = RunDir(tmp_path)
    is_by_clock = [False, True, False, True, False, False, False, True, False, False, True]
    for step, by_clock in enumerate(is_by_clock, start=1):
        save(run, "phase1", step, is_by_clock=by_clock)
    save(run, "phase10", 1)
    (run.checkpoint_dir("phase1", 5) / "checkpoint.json").write_text("{")
    run.remove_old_checkpoints("phase1", keep_last=2, keep_every=4)
    kept = [(phase, step) for phase, step, _ in run.checkpoint_folders()]
    assert kept == [("phase10", 1), *(("phase1", step) for step in (4, 8, 9, 10, 11))]
    run.remove_old_checkpoints("phase1", keep_last=1, keep_every=0)
    kept = [(phase, step) for phase, step, _ in run.checkpoint_folders()]
    assert kept == [("phase10", 1), ("phase1", 10), ("phase1", 11)]
