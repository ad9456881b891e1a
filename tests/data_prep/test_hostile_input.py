"""Input that is broken, odd or meant to hurt: documents, counted drops, or one sentence that names file and place.

Nothing else may come out: no traceback, no half output under the final name, no hang, and no end of the process (a
damaged Arrow file is mapped memory).

Mutations that must turn it red: zlib's errors not among those of damaged archives, a table used unchecked, a file that
is gone told as a traceback.
"""

# ruff: noqa: RUF001  text of every script is what this is about
import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import random
import resource
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bert_lamb.errors import UserError
from bert_lamb.outputs.staged import partial_dir_of
from bert_lamb.shards import read_manifest
from bert_lamb.shards.verify import verify
from data_prep.documents.cleaning import clean
from data_prep.prepare import prepare
from data_prep.settings import Cleaning, Settings, Spread
from data_prep.sources import KINDS, WIKITEXT, Document, Source, read_documents

KIND_OF_SUFFIX = {
    "a.txt": "text",
    "a.jsonl": "jsonl",
    "a.parquet": "parquet",
    "a.arrow": "arrow",
    "wiki_00": "wikiextractor",
    "a.xml": "mediawiki",
    "a.md": "markdown",
}
TEXTS = [f"A quiet river runs past house number {n}. Nobody crosses it in winter." for n in range(40)]


def plain_settings(*sources, **changes):
    defaults = Settings(
        sources=sources,
        vocabulary_file=None,
        vocabulary_train_size=120,
        is_lowercase=True,
        max_seq_lengths=(32,),
        sentence_task="next_sentence",
        short_seq_prob=0.1,
        random_next_prob=0.5,
        heldout_proportion=0.0,
        cleaning=Cleaning(min_characters=1),
        group_tokens=1000,
        instances_per_shard=100,
        seed=1,
    )
    return replace(defaults, **changes)


@pytest.fixture(autouse=True)
def without_card(monkeypatch):
    """The plots take a second, and depend on nothing that is tried here."""
    monkeypatch.setattr("data_prep.prepare.write_card", lambda directory, manifest: None)


def run(output_dir, *sources, **changes):
    """The manifest of a sound folder; or a UserError and no folder."""
    try:
        prepare(plain_settings(*sources, **changes), Spread(2000, 1), output_dir=output_dir, if_exists="restart")
    except UserError as error:
        is_told_whole = bool(error.found and error.expected and error.fix) and not output_dir.exists()
        if not is_told_whole:
            raise AssertionError(f"half told, or half an output: {error}") from error
        raise
    assert verify(output_dir) == []
    assert not partial_dir_of(output_dir).exists()
    return read_manifest(output_dir)


def good(folder):
    (folder / "good.txt").write_text("\n\n".join(TEXTS))
    return Source("good", "text", str(folder / "good.txt"))


def arrow_file(texts, *, is_stream=False):
    table = pa.table({"text": texts})
    stream = io.BytesIO()
    with (pa.ipc.new_stream if is_stream else pa.ipc.new_file)(stream, table.schema) as file:
        file.write_table(table, max_chunksize=7)
    return stream.getvalue()


def parquet_file(texts):
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), stream, row_group_size=7)
    return stream.getvalue()


def xml_dump(texts):
    pages = "".join(
        f"<page><title>T</title><ns>0</ns><id>{n}</id><revision><text>{text}</text></revision></page>\n"
        for n, text in enumerate(texts)
    )
    return f"<mediawiki>\n{pages}</mediawiki>".encode()


def jsonl(texts):
    return "\n".join(json.dumps({"text": text}) for text in texts).encode()


def wiki(texts):
    return "".join(f'<doc id="{n}" url="u" title="T">\nT\n\n{t}\n</doc>\n' for n, t in enumerate(texts)).encode()


SOUND = {
    "a.txt": "\n\n".join(TEXTS).encode(),
    "a.jsonl": jsonl(TEXTS),
    "a.parquet": parquet_file(TEXTS),
    "a.arrow": arrow_file(TEXTS),
    "wiki_00": wiki(TEXTS),
    "a.xml": xml_dump(TEXTS),
    "a.md": b"# T\n\n" + "\n\n".join(TEXTS).encode(),
}
PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def documents_of(path, *, stretch_bytes=500, **changes):
    kind = KIND_OF_SUFFIX.get(path.name.removesuffix(path.suffix) if path.suffix in PACKERS else path.name)
    source = Source("corpus", kind, str(path), **changes)
    stretches = list(KINDS[kind].stretches(source, stretch_bytes=stretch_bytes))
    return list(read_documents(source, tuple(stretches)))


def documents_or_complaint(path, **changes):
    """What the reader says; whatever else it raises, or a text that cannot be written, fails the test."""
    try:
        documents = documents_of(path, **changes)
    except UserError as error:
        if str(path) not in str(error):
            raise AssertionError(f"no {path} in {error}") from error
        return None
    for document in documents:
        document.text.encode("utf-8")
        document.key.encode("utf-8")
        text, _ = clean(document, Cleaning(drop_stubs=True, drop_boilerplate=True, unicode_normalization="NFKC"))
        text.encode("utf-8")
    return documents


@pytest.mark.parametrize("name", KIND_OF_SUFFIX)
@pytest.mark.parametrize("suffix", ["", *PACKERS])
def test_arbitrary_bytes(tmp_path, name, suffix):
    path = tmp_path / (name + suffix)

    @settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=300), st.booleans())
    @example(b"", False)
    @example(b"\x00", True)
    @example(b"\xef\xbb\xbf", True)
    @example(b"\r\n\r\n", True)
    @example(b'{"text": "a", "text": "b"}', True)
    @example(b'{"text": "a", "n": ' + b"1" * 5000 + b"}", True)
    @example(b'{"text": "a", "n": NaN}', True)
    @example(b'<doc id="" url="" title="">\n</doc>', True)
    @example(b"<mediawiki><page><id/><revision><text>&#xD;</text></revision></page></mediawiki>", True)
    @example(b"ARROW1\x00\x00", True)
    @example(b"PAR1PAR1", True)
    def hold(data, is_packed_well):
        path.write_bytes(PACKERS[suffix](data) if suffix and is_packed_well else data)
        documents_or_complaint(path)

    hold()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        (name, suffix)
        for name in KIND_OF_SUFFIX
        for suffix in ("", *PACKERS)
        if not suffix or name not in ("a.parquet", "a.arrow")  # tables are not packed
    ],
)
def test_sound_files_with_bytes_changed(tmp_path, name, suffix):
    """The hardest input for readers that map memory. In a child: a reader that is killed would end the tests."""
    path = tmp_path / (name + suffix)
    rng = random.Random(f"{name}{suffix}")
    sound = PACKERS[suffix](SOUND[name]) if suffix else SOUND[name]
    child = os.fork()
    if child == 0:
        status = 3
        try:
            for _ in range(150):
                data = bytearray(sound)
                for _ in range(rng.choice((1, 1, 3, 20))):
                    data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
                if rng.random() < 0.3:
                    del data[rng.randrange(len(data)) :]
                path.write_bytes(data)
                documents_or_complaint(path)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0, f"see {path}"


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("kept", [0, 1, 5, 0.3, 0.7, 0.99, -1])
def test_archives_that_break_off(tmp_path, suffix, kept):
    """No truncation may pass for the end of the file."""
    rng = random.Random(1)
    packed = PACKERS[suffix]("\n\n".join("".join(rng.choices("abcdef ", k=400)) for _ in range(200)).encode())
    stop = int(kept * len(packed)) if isinstance(kept, float) else kept
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(packed[:stop])
    if stop == 0 and documents_or_complaint(path) == []:
        return  # an empty file holds nothing, packed or not
    with pytest.raises(UserError, match=rf"a\.txt\{suffix} that cannot be read past byte \d+"):
        documents_of(path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_archives_of_several_streams_with_a_damaged_later_one(tmp_path, suffix):
    """As parallel packers write them. Damage at the head of a later stream must not pass for the end."""
    first, second = (PACKERS[suffix]("\n\n".join(part).encode() + b"\n\n") for part in (TEXTS[:20], TEXTS[20:]))
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(first + second)
    assert len(documents_of(path)) == 40
    path.write_bytes(first + b"\x13" + second[1:])
    with pytest.raises(UserError, match="that cannot be read past byte"):
        documents_of(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_tables_that_break_off(tmp_path, name):
    for stop in (0, 1, 6, 8, len(SOUND[name]) // 2, len(SOUND[name]) - 1):
        (tmp_path / name).write_bytes(SOUND[name][:stop])
        with pytest.raises(UserError, match=name.replace(".", r"\.") + " that cannot be read as"):
            documents_of(tmp_path / name)


def test_streams_of_arrow_that_break_off(tmp_path):
    stream = arrow_file(TEXTS, is_stream=True)
    for stop in (1, 50, len(stream) // 2):
        (tmp_path / "a.arrow").write_bytes(stream[:stop])
        with pytest.raises(UserError, match=r"a\.arrow that cannot be read as Arrow"):
            documents_of(tmp_path / "a.arrow")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    "column", [pa.array([b"\xff\xfe"]).cast(pa.string(), safe=False), pa.array([1]), pa.array([["x"]])]
)
def test_columns_that_are_no_text(tmp_path, name, column):
    table = pa.table({"text": column})
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    with pytest.raises(UserError, match=rf"{name}"):
        documents_of(path)


HOSTILE_TEXTS = {
    "right to left": "שלום עולם. מה שלומך היום? العربية لغة جميلة جدا. نعم.",
    "bidirectional controls": "\u202eabc\u202c def\u2066x\u2069. Second one.",
    "Chinese": "天地玄黄，宇宙洪荒。日月盈昃，辰宿列張。",
    "Thai without spaces": "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน" * 5,
    "control characters": "one\x00two\x07three\x1b[31m four\x7f. five\x0bsix\x0cseven\x85eight\u2028nine.",
    "combining marks": "a" + "\u0301" * 5000 + " b.",
    "astral characters": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 😀👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿. Second.",
    "noncharacters": "\ufffe\uffff\U0010ffff and words.",
    "only white space": " \t\u3000\u2003\xa0 ",
    "only control characters": "\x01\x02\x03",
    "only punctuation": "... --- ... !!! ???",
    "a long word": "x" * 20_000,
    "many dots": "." * 20_000,
    "many capitals and dots": "A. " * 20_000,
    "special tokens": "[CLS] a [SEP] [MASK] [PAD] [UNK] ##b",
}


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
def test_text_of_every_kind(tmp_path, text):
    (tmp_path / "a.jsonl").write_bytes(jsonl([text, None, ""]))
    manifest = run(tmp_path / "shards", good(tmp_path), Source("odd", "jsonl", str(tmp_path / "a.jsonl")))
    assert manifest.documents.num_read == 43
    assert manifest.sources[1].num_read == 3
    assert manifest.documents.dropped.get("too_short", 0) + manifest.documents.dropped.get("no_tokens", 0) in (2, 3)


def test_line_ends_of_every_system_give_the_same_text(tmp_path):
    found = {}
    for name, end in (("unix", "\n"), ("windows", "\r\n")):
        (tmp_path / "a.txt").write_bytes(f"One.{end}Two.{end}{end}{end}Three.{end}".encode())
        found[name] = [document.text for document in documents_of(tmp_path / "a.txt")]
    assert found["unix"] == found["windows"] == ["One.\nTwo.", "Three."]


def test_nothing_but_what_is_left_out(tmp_path):
    """The complaint tells what became of the documents."""
    stub = "Gnarl is a village in the north. This geography article is a stub. You can help Wikipedia by expanding it."
    (tmp_path / "stubs.jsonl").write_bytes(jsonl([stub] * 30))
    (tmp_path / "empty.jsonl").write_bytes(jsonl(["", None, " "] * 10))
    for name, reason, cleaning in (
        ("stubs", "'stub': 30", Cleaning(min_characters=1, drop_stubs=True)),
        ("empty", "'too_short': 30", Cleaning(min_characters=1)),
        ("empty", "'no_tokens': 30", Cleaning(min_characters=0)),
    ):
        with pytest.raises(UserError, match=f"no train instance from 30 documents, of which 30 .*{reason}"):
            run(tmp_path / "shards", Source("only", "jsonl", str(tmp_path / f"{name}.jsonl")), cleaning=cleaning)


@pytest.mark.parametrize("name", KIND_OF_SUFFIX)
def test_empty_files(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no document in source only|a\.\w+ that|no train instance from 1 documents"):
        run(tmp_path / "shards", Source("only", KIND_OF_SUFFIX[name], str(path)))


def test_a_source_that_may_be_empty_and_is_the_only_one(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"")
    for path in ("a.jsonl", "b.arrow"):
        (tmp_path / "b.arrow").write_bytes(arrow_file([])[:])
        source = Source("only", path.split(".")[1].replace("jsonl", "jsonl"), str(tmp_path / path), min_documents=0)
        with pytest.raises(UserError, match="no document"):
            run(tmp_path / "shards", source)
    assert run(tmp_path / "both", good(tmp_path), source).documents.num_read == 40


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"txt": "b"}', r"columns \['txt'\]"),
        (b'{"text": "b"', "delimiter"),
        (b'{"text": "b"} {"text": "c"}', "Extra data"),
        (b'{"text": ["b"]}', "text of type list"),
        (b'{"text": "b\\ud83d"}', "half of a surrogate pair"),
        (b'{"text": "b\xff"}', "byte 0xff that is not UTF-8"),
        (b'{"text": "b", "n": ' + b"9" * 5000 + b"}", "integer"),
        (b'{"text": ' + b"[" * 200_000, "recursion"),
        (b"\x00", "Expecting value"),
    ],
)
def test_one_bad_line_is_named_and_costs_the_output(tmp_path, line, complaint):
    head = jsonl(TEXTS) + b"\n"
    (tmp_path / "a.jsonl").write_bytes(head + line + b"\n" + jsonl(TEXTS))
    place = len(head) + (line.find(b"\xff") if b"\xff" in line else 0)
    with pytest.raises(UserError, match=complaint) as caught:
        run(tmp_path / "shards", Source("only", "jsonl", str(tmp_path / "a.jsonl")))
    assert f"{tmp_path / 'a.jsonl'}" in str(caught.value)
    assert f"at byte {place} of" in str(caught.value)


def test_keys_that_come_twice(tmp_path):
    (tmp_path / "wiki_00").write_bytes(wiki(TEXTS) + wiki(TEXTS[:3]))
    manifest = run(tmp_path / "shards", Source("only", "wikiextractor", str(tmp_path / "wiki_00")))
    assert manifest.documents.dropped == {"repeated_key": 3}


def test_a_folder_where_a_file_should_be(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(UserError, match=r"no file at .*a\.jsonl"):
        run(tmp_path / "shards", Source("only", "jsonl", str(tmp_path / "a.jsonl")))
    (tmp_path / "a.jsonl" / "b.jsonl").write_bytes(jsonl(TEXTS))
    assert run(tmp_path / "shards", Source("only", "jsonl", str(tmp_path / "a.jsonl"))).documents.num_read == 40


def test_links_that_lead_nowhere_or_in_a_circle(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "nowhere.txt").symlink_to(tmp_path / "absent")
    (folder / "circle").symlink_to(folder)
    with pytest.raises(UserError, match="no file at"):
        run(tmp_path / "shards", Source("only", "text", str(folder)))
    (folder / "a.txt").write_text("\n\n".join(TEXTS))
    assert run(tmp_path / "shards", Source("only", "text", str(folder))).documents.num_read == 40


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", KIND_OF_SUFFIX)
def test_files_that_may_not_be_read(tmp_path, name):
    (tmp_path / name).write_bytes(SOUND[name])
    (tmp_path / name).chmod(0)
    with pytest.raises(UserError, match=name):
        run(tmp_path / "shards", Source("only", KIND_OF_SUFFIX[name], str(tmp_path / name)))


@pytest.mark.parametrize("name", KIND_OF_SUFFIX)
@pytest.mark.parametrize("errno", [13, 5])
def test_a_disk_that_refuses(tmp_path, name, errno, monkeypatch):
    """EACCES and EIO while a file is opened, which root cannot be shown by permissions."""
    (tmp_path / name).write_bytes(SOUND[name])
    original = io.open

    def refusing(path, *arguments, **keywords):
        if str(path).startswith(str(tmp_path)):
            raise OSError(errno, os.strerror(errno), str(path))
        return original(path, *arguments, **keywords)

    for place in ("io.open", "builtins.open"):
        monkeypatch.setattr(place, refusing)
    for opener in ("pyarrow.memory_map", "pyarrow.parquet.ParquetFile"):
        monkeypatch.setattr(opener, refusing)
    assert documents_or_complaint(tmp_path / name) is None


@pytest.mark.parametrize("name", KIND_OF_SUFFIX)
def test_a_file_that_vanishes_between_plan_and_read(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(SOUND[name])
    source = Source("only", KIND_OF_SUFFIX[name], str(path))
    stretches = tuple(KINDS[source.kind].stretches(source, stretch_bytes=500))
    path.unlink()
    with pytest.raises(UserError, match=name):
        list(read_documents(source, stretches))


@pytest.mark.parametrize("name", KIND_OF_SUFFIX)
def test_a_file_that_is_cut_short_between_plan_and_read(tmp_path, name):
    """Any documents or a complaint, but the process lives."""
    path = tmp_path / name
    path.write_bytes(SOUND[name])
    source = Source("only", KIND_OF_SUFFIX[name], str(path))
    stretches = tuple(KINDS[source.kind].stretches(source, stretch_bytes=500))
    path.write_bytes(SOUND[name][: len(SOUND[name]) // 3])
    with contextlib.suppress(UserError):
        list(read_documents(source, stretches))


@pytest.mark.parametrize(
    "name", ["a b.txt", "new\nline.txt", "tab\t.txt", "ünïcödé 日本.txt", "'quote\".txt", "[x]*?.txt"]
)
def test_file_names_of_every_kind(tmp_path, name):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / name).write_text("\n\n".join(TEXTS))
    for path in (tmp_path / "corpus", tmp_path / "corpus" / name):
        assert run(tmp_path / "shards", Source("only", "text", str(path))).documents.num_read == 40


def test_a_file_name_that_is_no_text_is_refused(tmp_path):
    """The key names the document in the shards for good, and is hashed as UTF-8."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.txt"))).write_text("\n\n".join(TEXTS))
    with pytest.raises(UserError, match=r"bad\\xff\.txt.*rename"):
        run(tmp_path / "shards", Source("only", "text", str(folder)))


WIKI_MARKUP = {
    "half a surrogate pair": "before &#xD800; and &#56832; after",
    "entities": "&#0; &#x110000; &#99999999999999; &nosuch; &#x; &amp;amp; after",
    "nested templates": "{{a|" * 500 + "after",
    "nested links": "[[a|" * 3000 + "after",
    "nested tables": "{|\n|\n" * 500 + "after",
    "nested tags": "<div>" * 3000 + "after",
    "quotes": "'" * 5000 + " after",
    "list marks": "*" * 5000 + " words",
    "unclosed": "<ref name=x " * 500 + "after",
}


@pytest.mark.parametrize("markup", WIKI_MARKUP.values(), ids=WIKI_MARKUP)
def test_wiki_markup_made_to_hurt(markup):
    started_at = time.monotonic()
    text, _ = clean(Document("1", markup, WIKITEXT), Cleaning(min_characters=0))
    text.encode("utf-8")
    assert time.monotonic() - started_at < 20


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(["{{", "}}", "[[", "]]", "|", "<ref>", "</ref>", "\n", "* ", "''", "&#xDC00;", "a b", "{|", "|}", "<br", ">", "[http://x ", "]", "==", "&", ";", "\x00", "\ud7ff"]), max_size=30))  # fmt: skip  # noqa: E501
def test_wiki_markup_of_any_shape(pieces):
    text, _ = clean(Document("1", "".join(pieces), WIKITEXT), Cleaning(min_characters=0))
    text.encode("utf-8")
    assert "\x00" not in text


@pytest.mark.parametrize("form", ["words", "no spaces", "one bracket after the other"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_one_line_of_fifty_megabytes(tmp_path, name, form):
    """In a child whose memory is limited: a few times the line, and seconds, not minutes."""
    size = 50_000_000
    piece = {"words": "some words of a line. ", "no spaces": "x", "one bracket after the other": "["}[form]
    text = piece * (size // len(piece))
    (tmp_path / name).write_bytes(text.encode() if name == "a.txt" else jsonl([text]))
    child = os.fork()
    if child == 0:
        status = 3
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (90, 90))
            (document,) = documents_of(tmp_path / name, stretch_bytes=4_000_000)
            assert document.text == text
            status = 0
        finally:
            os._exit(status)
    _, exit_status, usage = os.wait4(child, 0)
    assert exit_status == 0
    assert usage.ru_utime + usage.ru_stime < 30
