"""Vocabularies that are none, or do not fit the text: refused with the line, or warned of, before anything is made."""

import json
import random
from functools import partial

import pytest

from bert_lamb.errors import UserError
from bert_lamb.outputs.staged import partial_dir_of
from data_prep.documents.vocabulary_file import read_entries
from data_prep.documents.vocabulary_fit import require_fitting_case, require_fitting_text, share_unknown
from data_prep.prepare import merge, prepare
from data_prep.settings import Spread
from data_prep.sources import Source
from data_prep.vocab import train_vocabulary

# ruff: noqa: RUF001  letters that are easily mistaken are among what is tried
from tests.data_prep.test_hostile_input import plain_settings

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [chr(number) for number in range(ord("a"), ord("z") + 1)]
UNCASED = [*SPECIAL, "[unused0]", ".", *LETTERS, *(f"##{letter}" for letter in LETTERS), "river", "house", "number"]
CASED = [*UNCASED, *(letter.upper() for letter in LETTERS), "River", "Paris"]
ENTRIES = [*SPECIAL, "river", "##s"]


def written(folder, entries, *, name="vocab.txt"):
    (folder / name).write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    return folder / name


def lines_of(*entries, end="\n"):
    return "".join(entry + end for entry in (*SPECIAL, *entries)).encode()


@pytest.mark.parametrize(
    "content",
    [
        lines_of("river", "##s"),
        lines_of("river", "##s").removesuffix(b"\n"),
        lines_of("river", "##s", end="\r\n"),
        lines_of("river", "##s", end="\r\n").removesuffix(b"\r\n"),
        b"\xef\xbb\xbf" + lines_of("river", "##s"),
        b"\xef\xbb\xbf" + lines_of("river", "##s", end="\r\n"),
    ],
)
def test_line_ends_and_a_byte_order_mark_belong_to_no_entry(tmp_path, content):
    (tmp_path / "vocab.txt").write_bytes(content)
    assert read_entries(tmp_path / "vocab.txt") == ENTRIES


@pytest.mark.parametrize("entry", ["東", "é", "\u3000", "\u200b", "▁", "##▁", "Ġ", "{", '{"', "#version:", "[unused1]"])
def test_odd_entries_that_real_vocabularies_have(tmp_path, entry):
    assert read_entries(written(tmp_path, [*SPECIAL, entry]))[5] == entry


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lines_of("river\r", "city"), "carriage return at the end of line 6 of .*, but not of line 1"),
        (lines_of("a", "b", end="\r\n") + b"c\nd\n", "carriage return at the end of line 1 of .*, but not of line 8"),
        (lines_of("ri\rver"), r"white space in line 6 of .*: 'ri\\rver'"),
        (lines_of("a", end="\r"), "white space in line 1"),
        (lines_of("river\t-3.2"), r"white space in line 6 of .*river\\t-3\.2"),
        (lines_of("new york"), "white space in line 6 of .*'new york'"),
        (lines_of("river "), "white space in line 6"),
        (lines_of("river", "", "city"), "empty line 7"),
        (lines_of("river", ""), "empty line 7"),
        (lines_of("river", "city", "river"), r"more than once .*\['river'\], the first in lines \[6, 8\]"),
        (lines_of("river").decode().encode("utf-16"), "UTF-16 text"),
        (lines_of("river").decode().encode("utf-16-le"), "binary data, or UTF-16,"),
        (json.dumps({"version": "1.0", "model": {"vocab": {"[PAD]": 0}}}).encode(), "JSON, such as a tokenizer.json"),
        (json.dumps({"version": "1.0"}, indent=2).encode(), "JSON"),
        (lines_of(*(f"▁w{n}" for n in range(20))), "SentencePiece .20 entries begin with ▁"),
        (b"<unk>\t0\n<s>\t0\n" + "".join(f"▁w{n}\t-{n}\n" for n in range(20)).encode(), "SentencePiece"),
        ("".join(f"Ġw{n}\n" for n in range(20)).encode(), "byte-level BPE"),
        (b"#version: 0.2\ni n\n", "merges of a byte-level BPE"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "pointer of git-lfs"),
        (b"\x1f\x8b\x08\x00", "a packed file"),
        (b"", "an empty line 1"),
    ],
)  # fmt: skip
def test_files_that_are_no_vocabulary_are_named(tmp_path, content, complaint):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_entries(tmp_path / "vocab.txt")


def test_a_cased_vocabulary_for_text_in_lower_case(tmp_path):
    path = written(tmp_path, CASED)
    with pytest.raises(
        UserError, match=r"28 of 90 entries .*'A', but .*is_lowercase=true.*fix: set .*is_lowercase=false"
    ):
        require_fitting_case(path, is_lowercase=True)
    assert require_fitting_case(path, is_lowercase=False) == []


def test_an_uncased_vocabulary_may_have_odd_entries(tmp_path):
    """Marks, letters without a lower case; a real capital or two are warned of."""
    odd = [*UNCASED, "<S>", "[ENT]", "ℝ", "東", *(f"w{number}" for number in range(300))]
    assert require_fitting_case(written(tmp_path, odd), is_lowercase=True) == []
    (line,) = require_fitting_case(written(tmp_path, [*odd, "NASA"]), is_lowercase=True)
    assert "1 of 367 entries" in line
    assert "'NASA'" in line


TEXT = ["The river runs past a house. Nobody in Paris knows the number of it."]


@pytest.mark.parametrize(
    ("entries", "is_lowercase", "texts", "complaint"),
    [
        (UNCASED, False, TEXT, "no entry with a capital .*capitals in 21.4 % of the words .*is_lowercase=true"),
        (UNCASED, False, ["Été à la plage"], "no entry with a capital"),
        (UNCASED, False, ["l'été à la forêt, déjà né"], r"\[UNK\] for .*with the other setting it .*is_lowercase=true"),
        (CASED, True, ["Θάλασσα και ποτάμι"], r"\[UNK\] for 100.0 % of the tokens .*vocabulary of the text's language"),
        (UNCASED, True, ["ก" * 150 + " river" * 20], r"for 4.8 % of the tokens and 60.0 % of the characters"),
    ],
)  # fmt: skip
def test_text_that_the_vocabulary_does_not_know_is_refused(tmp_path, entries, is_lowercase, texts, complaint):
    with pytest.raises(UserError, match=complaint):
        require_fitting_text(written(tmp_path, entries), texts, is_lowercase=is_lowercase)


@pytest.mark.parametrize(
    ("entries", "is_lowercase", "texts", "warning"),
    [
        (UNCASED, True, TEXT, None),
        (CASED, False, TEXT, None),
        (UNCASED, False, [TEXT[0].lower()], None),
        (UNCASED, False, ["river " * 99 + "Paris"], "capitals in 1 % of the words"),
        (
            [*UNCASED, *"東京的公司"],
            False,
            ["東京的公司" * 6 + "ibm公司", "東京的公司" * 13 + "IBM"],
            "in 1 % of the words",
        ),
        ([*UNCASED, *"東京。"], False, ["東京。" * 15 + "a" + "東京。" * 9 + "I"], "capitals in 2 % of the words"),
        (UNCASED, True, ["river " * 97 + "→ ∞ ∑"], None),
        (UNCASED, True, ["river " * 9 + "→"], "[UNK] for 10.0 % of the tokens and 2.2 % of the characters"),
        (UNCASED, True, [], None),
        (UNCASED, False, [" ", "\n"], None),
    ],
)
def test_text_that_the_vocabulary_knows_or_is_warned_of(tmp_path, entries, is_lowercase, texts, warning):
    lines = require_fitting_text(written(tmp_path, entries), texts, is_lowercase=is_lowercase)
    assert len(lines) == (warning is not None)
    assert warning is None or warning in lines[0]


def test_the_share_of_unknown_tokens_and_characters():
    """a b ? c, and a word of 101 letters: 2 of 5 tokens, 1 + 101 of 105 characters."""
    found = share_unknown([*SPECIAL, "a", "b", "c"], ["a b ? c", "a" * 101], is_lowercase=True)
    assert (found.share_of_tokens, found.share_of_characters) == (2 / 5, 102 / 105)


@pytest.fixture
def corpus(tmp_path):
    """Four files: that in the middle and the last are cased, or not of this alphabet, where a test writes them so."""
    rng = random.Random(1)
    for number in range(4):
        paragraphs = [" ".join(rng.choices(["river", "house", "number"], k=20)) + "." for _ in range(10)]
        (tmp_path / f"{number}.txt").write_text("\n\n".join(paragraphs))
    return Source("text", "text", str(tmp_path / "*.txt"), document_boundary="blank_line")


@pytest.fixture(autouse=True)
def without_card(monkeypatch):
    monkeypatch.setattr("data_prep.prepare.write_card", lambda directory, manifest: None)


def of_folder(folder, source, entries, **changes):
    return plain_settings(source, vocabulary_file=written(folder, entries, name="given.vocab"), **changes)


@pytest.mark.parametrize("command", ["prepare", "share", "restart", "merge"])
def test_every_command_refuses_before_it_makes_or_deletes_anything(tmp_path, corpus, command):
    output_dir = tmp_path / "out" / "shards"
    if command in ("restart", "merge"):
        settings = of_folder(tmp_path, corpus, UNCASED)
        share = "0/1" if command == "merge" else None
        prepare(settings, Spread(500, 1, share=share), output_dir=output_dir, if_exists="refuse")
    settings, spread = of_folder(tmp_path, corpus, CASED), Spread(500, 1, share="1/2" if command == "share" else None)
    before = sorted(tmp_path.rglob("*"))
    run = partial(merge, settings, spread, output_dir=output_dir)
    if command != "merge":
        if_exists = "restart" if command == "restart" else "refuse"
        run = partial(prepare, settings, spread, output_dir=output_dir, if_exists=if_exists)
    with pytest.raises(UserError, match=r"entries .*have capitals"):
        run()
    assert sorted(tmp_path.rglob("*")) == before
    if command == "restart":
        (tmp_path / "3.txt").write_text("เรือ" * 2000)
        with pytest.raises(UserError, match=r"\[UNK\] for"):
            prepare(of_folder(tmp_path, corpus, UNCASED), spread, output_dir=output_dir, if_exists="restart")
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", [0, 2, 3])
def test_the_sample_comes_from_all_over_the_corpus(tmp_path, corpus, number, capsys):
    """One file of four has arrows. Each is a partition: the first, the middle one and the last are looked at."""
    words = " ".join(["river"] * 5 + ["→"] * 3)
    (tmp_path / f"{number}.txt").write_text("\n\n".join([words] * 40))
    prepare(of_folder(tmp_path, corpus, UNCASED), Spread(500, 1), output_dir=tmp_path / "shards", if_exists="refuse")
    first_line = capsys.readouterr().err.splitlines()[0]
    assert first_line.startswith("warning: [UNK] for ")


def test_a_trained_vocabulary_that_leaves_much_unknown_is_warned_of(tmp_path, capsys):
    """Two thousand characters, of which it can hold one thousand: half of the text, about half of the instances."""
    text = "\n\n".join("".join(chr(0x4E00 + (start + n) % 2000) for n in range(200)) for start in range(0, 20_000, 200))
    (tmp_path / "a.txt").write_text(text)
    settings = plain_settings(Source("text", "text", str(tmp_path / "a.txt")), vocabulary_train_size=3000)
    train_vocabulary(settings, Spread(10**6, 1), output_file=tmp_path / "vocab.txt", if_exists="refuse")
    assert "warning: [UNK] for 50.0 % of the tokens" in capsys.readouterr().err
    prepare(settings, Spread(10**6, 1), output_dir=tmp_path / "shards", if_exists="refuse")
    assert "warning: [UNK] for 49.8 % of the tokens of train 32" in capsys.readouterr().err
    assert not partial_dir_of(tmp_path / "shards").exists()
