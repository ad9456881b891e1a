"""Every kind of source: the documents, their keys and order, and the refusal of what cannot be read.

Mutations that must turn it red: files unsorted, keys with absolute paths, decoding with errors="replace", a redirect or
a talk page kept, a truncated archive taken for the end of the file.
"""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_lamb.errors import UserError
from data_prep.sources import WIKITEXT, Document, Source, read_documents


def source(kind, path="", **changes):
    fields = {
        "name": "corpus",
        "kind": kind,
        "path": str(path),
        "document_boundary": "blank_line",
        "text_column": "text",
        "dataset": "",
        "dataset_config": "",
        "dataset_split": "train",
        "max_documents": None,
        "license": "",
    }
    return Source(**{**fields, **changes})


def read(kind, path="", **changes):
    return list(read_documents(source(kind, path, **changes)))


def test_text_parted_by_blank_lines(tmp_path):
    (tmp_path / "b.txt").write_bytes("\ufeffOne.\r\nTwo.\r\n\r\n \t\r\nThree é.".encode())
    (tmp_path / "a.txt").write_text("\n\nZero.\n\n")
    assert read("text", tmp_path) == [
        Document("a.txt#0", "Zero."),
        Document("b.txt#0", "One.\nTwo."),
        Document("b.txt#1", "Three é."),
    ]


def test_text_with_a_document_a_file_in_sorted_order(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("z.txt", "sub/b.md", "a.txt"):
        (tmp_path / name).write_text(f"{name}\n\nmore")
    (tmp_path / ".hidden").write_text("no")
    found = read("text", tmp_path, document_boundary="file")
    assert [document.key for document in found] == ["a.txt", "sub/b.md", "z.txt"]
    assert found[0].text == "a.txt\n\nmore"


def test_keys_hold_no_absolute_path(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "x.txt").write_text("Text.")
    by_folder = [read("text", tmp_path / folder) for folder in ("one", "two")]
    by_pattern = [read("text", tmp_path / folder / "*" / "*.txt") for folder in ("one", "two")]
    assert by_folder[0] == by_folder[1] == by_pattern[0] == by_pattern[1]


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_jsonl_packed_or_not(tmp_path, suffix, pack):
    lines = [json.dumps({"body": text, "id": 7}) for text in ("One.", "Two\nlines.", None)]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack("\n".join(lines).encode()))
    (tmp_path / "notes.md").write_text("not read")
    found = read("jsonl", tmp_path, text_column="body")
    assert [document.text for document in found] == ["One.", "Two\nlines.", ""]
    assert [document.key for document in found] == [f"a.jsonl{suffix}#{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"text": "a"}\n{"txt": "b"}', r"columns \['txt'\] in .*line 2"),
        ('{"text": "a"}\n{"text": ', "line 2"),
        ('["a"]', "columns list in .*line 1"),
        ('{"text": 3}', "text of type int in .*line 1"),
    ],
)
def test_jsonl_that_cannot_be_read(tmp_path, line, complaint):
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(UserError, match=complaint):
        read("jsonl", tmp_path)


def test_parquet(tmp_path):
    for name, texts in (("b", ["Two.", None]), ("a", ["One."])):
        pq.write_table(pa.table({"text": texts, "other": [1] * len(texts)}), tmp_path / f"{name}.parquet")
    assert read("parquet", tmp_path) == [
        Document("a.parquet#0", "One."),
        Document("b.parquet#0", "Two."),
        Document("b.parquet#1", ""),
    ]
    with pytest.raises(UserError, match=r"columns \['text', 'other'\].*a column 'body'"):
        read("parquet", tmp_path, text_column="body")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.parquet that cannot be read"):
        read("parquet", tmp_path)


WIKIEXTRACTOR = """<doc id="12" url="https://x" title="A &amp; B">
A &amp; B

First &lt;paragraph&gt;.
Second.

</doc>
<doc id="13" url="https://y" title="Quote "C" here">
No title line.
</doc>
"""


def test_wikiextractor(tmp_path):
    (tmp_path / "wiki_00").write_text(WIKIEXTRACTOR)
    assert read("wikiextractor", tmp_path) == [
        Document("12", "\nFirst <paragraph>.\nSecond.\n"),
        Document("13", "No title line."),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Hello.\n" + WIKIEXTRACTOR, "text outside <doc> at byte 0 of"),
        (WIKIEXTRACTOR + '<doc id="14" url="" title="D">\nD\n', "<doc id='14'> without </doc>"),
        ("\n", "no document in source corpus"),
    ],
)
def test_text_unlike_wikiextractor(tmp_path, text, complaint):
    (tmp_path / "wiki_00").write_text(text)
    with pytest.raises(UserError, match=complaint):
        read("wikiextractor", tmp_path)


def page(number, title, text, namespace=0, redirect=""):
    return (
        f"<page><title>{title}</title><ns>{namespace}</ns><id>{number}</id>{redirect}"
        f"<revision><id>{number + 900}</id><text>{text}</text></revision></page>"
    )


DUMP = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><sitename>W</sitename></siteinfo>'
    + page(1, "One", "'''One''' &lt;ref&gt;x&lt;/ref&gt; here")
    + page(2, "Moved", "#REDIRECT [[One]]", redirect='<redirect title="One" />')
    + page(3, "Talk:One", "chat", namespace=1)
    + page(4, "Four", "")
    + page(5, "Five", "text")
    + "</mediawiki>"
)


@pytest.mark.parametrize(("name", "pack"), [("dump.xml", bytes), ("dump.xml.bz2", bz2.compress)])
def test_mediawiki_takes_articles_that_are_no_redirects(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(DUMP.encode()))
    for path in (tmp_path, tmp_path / name):
        assert read("mediawiki", path) == [
            Document("1", "'''One''' <ref>x</ref> here", WIKITEXT),
            Document("4", "", WIKITEXT),
            Document("5", "text", WIKITEXT),
        ]


def test_multistream_dumps_are_read_to_the_end(tmp_path):
    half = DUMP.index("<page><title>Four")
    (tmp_path / "d.xml.bz2").write_bytes(bz2.compress(DUMP[:half].encode()) + bz2.compress(DUMP[half:].encode()))
    assert [document.key for document in read("mediawiki", tmp_path)] == ["1", "4", "5"]


def test_dumps_that_break_off(tmp_path):
    packed = bz2.compress((DUMP * 1).encode())
    for name, content in (("a.xml", DUMP[:-30].encode()), ("b.xml.bz2", packed[:-20]), ("c.xml.bz2", b"no bz2")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name} that breaks off or is no XML"):
            read("mediawiki", path)


def test_broken_archives_of_text(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"line\n" * 1000)[:-10])
    with pytest.raises(UserError, match=r"a\.txt\.gz that cannot be read past byte"):
        read("text", tmp_path)


def test_a_byte_that_is_not_utf8_is_named_with_its_place(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfgood line\nbad \xe9 line\n")
    with pytest.raises(UserError, match=r"byte 0xe9 that is not UTF-8 at byte 17 of .*a\.txt"):
        read("text", tmp_path)
    assert (tmp_path / "a.txt").read_bytes()[17] == 0xE9


def test_huggingface_by_folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n{"text": "Three."}\n')
    found = read("huggingface", dataset=str(tmp_path / "set"), max_documents=2)
    assert found == [Document("0", "One."), Document("1", "Two.")]
    with pytest.raises(UserError, match="a column 'body'"):
        read("huggingface", dataset=str(tmp_path / "set"), text_column="body")


def test_huggingface_that_cannot_be_loaded(tmp_path):
    with pytest.raises(UserError, match=r"absent train that cannot be loaded.*sources\.corpus\.dataset"):
        read("huggingface", dataset=str(tmp_path / "absent"))


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet", "wikiextractor", "mediawiki"])
def test_no_file_is_refused(tmp_path, kind):
    for path in (tmp_path, tmp_path / "absent", tmp_path / "*.x"):
        with pytest.raises(UserError, match=r"no file at .*sources\.corpus\.path"):
            read(kind, path)


def test_no_document_is_refused_and_max_documents_is_kept(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n")
    with pytest.raises(UserError, match="no document in source corpus"):
        read("text", tmp_path)
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n\nThree.")
    assert [document.text for document in read("text", tmp_path, max_documents=2)] == ["One.", "Two."]
