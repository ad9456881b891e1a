"""Texts of the command line are what was typed, entries of mappings come from it, and ~ is the home folder everywhere.

Breaks that turn this file red: Hydra's types for texts, sweeps without -m, entries before those of the files.
"""

import os
import shlex
from pathlib import Path

import pytest

from bert_lamb.cli import main as cli
from bert_lamb.cli.compose import compose as compose_typed
from bert_lamb.cli.overrides import make_ready, split_at_commas
from bert_lamb.cli.yaml_texts import _text_keys
from bert_lamb.config import corpus, door
from bert_lamb.config.paths import PATHS
from bert_lamb.errors import UserError
from tests.launch import CHECKOUT

CORPUS = ["prepare", "corpus=text", "sources.text.path=t", "output_dir=o"]
RUN = ["pretrain", "recipe=demo", "shards=s", "run_dir=r"]


def compose(command, *words):
    return compose_typed(command, list(words))


def texts(*typed):
    """What becomes of each of them, as the value of a key that the schema types as text."""
    words = [f"+scores.n{index}={text}" for index, text in enumerate(typed)]
    return list(compose("report", "run_dir=r", *words).scores.values())


def refused(command, *words):
    with pytest.raises(UserError) as error:
        compose(command, *words)
    return str(error.value)


TYPED = (
    *("2024_05_01", "1e5", "0x10", "007", "1_000", "+1", "1.50", ".5", "true", "null", "on", "12:30", "nan", "-inf"),
    *("a=b", "a,b", "a b", " a ", "a\tb", "a\nb", "daten-é/ü/中文/🙂", "$HOME", "a$", "#x", "100%", "a&b;c|d", "<x>"),
    *("it's", 'say "x"', "a'b\"c", "'90s", "a[1]", "(x)", "{y}", "[a]", "{a: b}", "a{b", "a)b", "]", "a${b", "${"),
    *("\\", "a\\", "a\\'b", "a\\b", "`ls`", "!", "^", "*.txt", "?", "@x", "-x", "--x", "+x", "./~", "x~", "data(1)"),
)
HYDRAS = {  # typed: meant
    "'a b'": "a b",  # quotes
    '"a,b"': "a,b",
    "'2024_05_01'": "2024_05_01",
    "a\\,b\\=c\\ d": "a,b=c d",  # escapes
    "${oc.env:FOLDER}/1e5": "/some/1e5",
    "x/${run_dir}": "x/r",
    "${oc.env:NONE,${oc.env:FOLDER}}": "/some",
    "\\${x}": "${x}",
}


def test_a_text_is_what_was_typed():
    assert tuple(texts(*TYPED)) == TYPED
    assert compose("export", "run_dir=2024_05_01", "output_dir=1e5,é").output_dir == "1e5,é"


def test_what_stays_hydras(monkeypatch):
    monkeypatch.setenv("FOLDER", "/some")
    assert texts(*HYDRAS) == list(HYDRAS.values())


def test_null_is_none_only_where_there_may_be_none():
    made = compose(*CORPUS, "vocabulary.file=null", "share=NULL", "sources.text.license=null")
    assert (made.vocabulary.file, made.share, made.sources["text"].license) == (None, None, "null")
    assert compose(*CORPUS, "vocabulary.file='null'").vocabulary.file == "null"
    assert compose("squad", "model_dir=m", "eval_file=e", "run_dir=o", "train_file=1e5").train_file == "1e5"


@pytest.mark.parametrize(
    ("words", "ready"),
    [
        (["-m", "run_dir=1e5,a(1,2),'x,y',c\\,d"], ['run_dir="1e5","a(1,2)",\'x,y\',"c,d"', "-m"]),
        (["run_dir=007, é", "--multirun"], ['run_dir="007","é"', "--multirun"]),
        (["-m", "run_dir=choice(1e5,007)"], ['run_dir=choice("1e5","007")', "-m"]),
        (["-m", "run_dir=a]b,${x:1,2}"], ['run_dir="a]b","${x:1,2}"', "-m"]),
        (["--config-dir", "run_dir=1", "run_dir=1"], ['run_dir="1"', "--config-dir", "run_dir=1"]),
        (["~run_dir", "hydra.run.dir=1e5", "recipe=a,b"], ["~run_dir", "hydra.run.dir=1e5", "recipe=a,b"]),
    ],
)
def test_sweeps_and_flags(words, ready):
    assert make_ready(door.SCHEMAS["export"], words) == ready


def test_shares_of_a_launcher_are_a_sweep():
    for how in ("spread=slurm", "hydra.mode=MULTIRUN"):
        assert make_ready(corpus.PrepareConfig, [how, "share=0/2,1/2"]) == [how, 'share="0/2","1/2"']
    assert "found share=0/2,1/2" in refused(*CORPUS, "share=0/2,1/2")


def test_commas_that_part():
    assert split_at_commas("a,(b,c),'d,e',f\\,g,${h,i}") == ["a", "(b,c)", "'d,e'", "f\\,g", "${h,i}"]
    assert split_at_commas("a(,b") == ["a(", "b"]


@pytest.mark.parametrize("word", ["seed=é", "max_seq_lengths=1#2", "cleaning.min_words=a'b\"", "hydra.run.dir=ü/x"])
def test_the_message_shows_the_quoting_that_works(word):
    message = refused(*CORPUS, word)
    assert message.startswith(f"found {word}, which Hydra cannot read")
    fix = shlex.split(message.split("fix: type ")[1])[0]
    assert make_ready(corpus.PrepareConfig, [fix]) == [fix]
    assert fix.split("=")[0] == word.split("=")[0]


MORE = {"text": ("text", "t", 1.0), "more": ("jsonl", "2024_05_01", 2.0)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["+sources.more.kind=jsonl", "+sources.more.path=2024_05_01", "+sources.more.weight=2"], MORE),
        (["sources.more.kind=jsonl", "++sources.more.path=2024_05_01", "sources.more.weight=2"], MORE),
        (["+sources.more={kind:jsonl,path:2024_05_01,weight:2}"], MORE),
        (["sources={more:{kind: jsonl, path: 2024_05_01, weight: 2}}"], MORE),
        (["+sources.text.path=u,é"], {"text": ("text", "u,é", 1.0)}),
        (["sources.text.kind=parquet"], {"text": ("parquet", "t", 1.0)}),
        (["~sources.text", "+sources.more={kind:jsonl,path:'a,b'}"], {"more": ("jsonl", "a,b", 1.0)}),
        (
            ["sources.b.kind=arrow", "sources.b.path=1", "sources.a.kind=huggingface", "sources.a.dataset=007"],
            {"text": ("text", "t", 1.0), "b": ("arrow", "1", 1.0), "a": ("huggingface", "", 1.0)},
        ),
    ],
)
def test_sources_from_the_command_line(words, expected):
    """In the order in which they are typed, after those of the files."""
    found = compose(*CORPUS, *words).sources
    assert list(found) == list(expected)
    assert {name: (one.kind.value, one.path, one.weight) for name, one in found.items()} == expected


def test_sources_without_any_file():
    found = compose("prepare", "output_dir=o", "+sources.a.kind=markdown", "+sources.a.path=books").sources
    assert {name: (one.kind.value, one.path) for name, one in found.items()} == {"a": ("markdown", "books")}


def test_the_readmes_sources_compose():
    lines = (CHECKOUT / "data_prep" / "README.md").read_text().replace("\\\n", " ").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("    bert-lamb prepare output_dir=shards")]
    found = [list(compose(*command).sources) for command in commands if "--config-dir" not in command]
    assert found == [["notes"], ["text", "notes"]]


def test_entries_of_every_other_mapping():
    phase = "{shards:1e3,max_seq_length:64,max_predictions_per_seq:9,global_batch_size:8,total_steps:3,peak_lr:1e-3,"
    words = [f"phases.late={phase}warmup_proportion:0.1}}", "runtime.micro_batch_size.late=4"]
    made = compose(*RUN, *words, "runtime.deepspeed_overrides.a.b=1e5", "+runtime.deepspeed_overrides.c={d:[1]}")
    assert list(made.phases) == ["phase1", "phase2", "late"]
    assert made.phases["late"].shards == "1e3"
    assert made.runtime.micro_batch_size == {"phase1": 16, "phase2": 4, "late": 4, "fine_tuning": 32}
    assert made.runtime.deepspeed_overrides == {"a": {"b": 1e5}, "c": {"d": [1]}}
    assert list(compose(*RUN, "~phases.phase2").phases) == ["phase1"]
    for word in ("+scores.squad=1e5", "scores.squad=1e5", "++scores={squad:1e5}", "scores={squad:'1e5'}"):
        assert compose("report", "run_dir=r", word).scores == {"squad": "1e5"}
    assert compose("report", "run_dir=r", "scores={lamb 32k:a:b,x:007}").scores == {"lamb 32k": "a:b", "x": "007"}
    assert compose("report", "run_dir=r", "scores.2024_05_01=x").scores == {"2024_05_01": "x"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+sources.text.pth=x"], "found sources.text.pth, which is not a field; expected one of path"),
        (["++sources.text.pth=x"], "found sources.text.pth"),
        (["+sedd=3"], "found sedd, which is not a field; expected one of seed"),
        (["sources.txt.path=x"], "found no value for sources.txt.kind"),
        (["+sources.é.path=x"], "expected KEY=VALUE, with keys of the letters a to z"),
        (["output_dir="], "found output_dir=''; expected a path"),
        (["cleaning=${oc.env:PATH}"], "expected keys below it; fix: set cleaning"),
        (["sources.text=${seed}"], "found sources.text=12345; expected keys below it"),
        (["max_seq_lengths=${seed}"], "max_seq_lengths"),
        (["output_dir=~no such user/x"], "expected after ~ the name of a user of this machine"),
        (["vocabulary.file=a\udce9"], "found vocabulary.file=b'a\\xe9'; expected bytes that are UTF-8"),
    ],
)
def test_what_is_refused(words, message):
    assert message in refused(*CORPUS, *words)


@pytest.mark.parametrize(
    "word",
    ["+=", "+model=true", "+model=1.5", f"+{'x' * 300}=1", "--resolve", "seed=" + "9" * 5000, "--odd", "--cfg=x"],
)
@pytest.mark.parametrize("flags", [[], ["hydra.verbose=false"]])
def test_words_that_hydra_meets_with_an_assertion_or_the_like(word, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*RUN, word, *flags]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("bert-lamb pretrain: found ")


def test_home_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    made = compose(*CORPUS[:2], "sources.text.path=~/t", "output_dir='~/o'", "vocabulary.file=~/v", "share=0/1")
    assert (made.sources["text"].path, made.output_dir, made.vocabulary.file) == ("/h/t", "/h/o", "/h/v")
    made = compose(
        "pretrain", "recipe=demo", "shards=~/s", "run_dir=~/r", "phases.phase2.shards=~/p", "tracker.project=~"
    )
    assert (made.shards, made.run_dir, made.tracker.project) == ("/h/s", "/h/r", "~")
    assert [phase.shards for phase in made.phases.values()] == ["/h/s", "/h/p"]
    made = compose("report", "run_dir=~", "+scores.a=~/b", "compare=[~/c,d]")
    assert (made.scores, made.compare) == ({"a": "/h/b"}, ["/h/c", "d"])


def test_every_field_that_is_a_path_is_known_as_one():
    """A field is a path by its name; what is none is listed here."""
    keys = {".".join(key) for schema in door.SCHEMAS.values() for key in _text_keys(schema)}
    named = {key for key in keys if any(part in key for part in ("path", "dir", "file", "shards", "scores", "dataset"))}
    no_paths = {"sources.*.dataset_config", "sources.*.dataset_split", "dataset_name"}
    otherwise = {"data", "predictions", "na_prob", "initial_weights", "context", "source", "config", "vocab", "output"}
    assert otherwise <= keys
    in_lists = {"compare.*"}  # whose entries have no names
    assert (named - no_paths) | otherwise | in_lists == set(PATHS)


def test_own_yaml_files(tmp_path, monkeypatch, capsys):
    """--config-dir: a corpus of one's own; what yaml would change in a text is refused, with the line."""
    monkeypatch.chdir(tmp_path)
    Path("conf/corpus").mkdir(parents=True)
    head = "# @package _global_\nsources:\n"
    Path("conf/corpus/good.yaml").write_text(head + "  a: {kind: jsonl, path: '2024_05_01', license: 2024}\n")
    Path("conf/corpus/bad.yaml").write_text(head + "  a: {kind: jsonl, path: 12:30}\n  b: {kind: text, path: on}\n")
    flags = ["output_dir=o", "--config-dir", "conf"]
    assert cli.main(["prepare", "corpus=good", *flags]) == 2  # found and read: there is no such file
    assert "found no file at 2024_05_01" in capsys.readouterr().err
    assert cli.main(["prepare", "corpus=bad", *flags]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bert-lamb")]
    assert "found sources.a.path: 12:30 in conf/corpus/bad.yaml, line 3, which yaml reads as int 750" in lines[
        0
    ].replace(f"{tmp_path}{os.sep}", "")
    assert lines[1].endswith("fix: write path: 'on'")
    assert len(lines) == 2
    Path("conf/corpus/broken.yaml").write_text(head + "  a: {kind: text\n")
    Path("conf/corpus/latin.yaml").write_bytes(head.encode() + b"  a: {kind: text, path: \xe9}\n")
    for name, message in (("broken", "broken.yaml"), ("latin", "can't decode byte 0xe9"), ("none", "corpus/none")):
        assert cli.main(["prepare", f"corpus={name}", *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("bert-lamb prepare: found configuration that does not compose (")
        assert message in line


def test_a_working_folder_that_was_deleted(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert cli.main(["inspect", "shards_dir=/s"]) == 2
    assert "found a working folder that was deleted" in capsys.readouterr().err


def test_overrides_on_both_sides_of_a_flag():
    """A script may append words to those of its caller; Hydra wants overrides side by side."""
    words = ["seed=1", "--config-dir", "own", "run_dir=r", "phases.fine.total_steps=3", "--cfg", "job"]
    *overrides, first, second, third, fourth = make_ready(door.SCHEMAS["pretrain"], words)
    assert [first, second, third, fourth] == ["--config-dir", "own", "--cfg", "job"]
    assert overrides[0] == "seed=1"
    assert len(overrides) == 4  # the last declares the new phase
