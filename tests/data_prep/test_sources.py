"""Every kind of source: the documents, their keys and order, and the refusal of what cannot be read.

Mutations that must turn it red: files unsorted, keys with absolute paths, decoding with errors="replace", a redirect or
a talk page kept, a truncated archive taken for the end of the file.
"""

import bz2
import gzip
import json
import lzma
import random

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_lamb.errors import UserError
from data_prep.sources import EXTRACTED, KINDS, MARKDOWN, WIKITEXT, Document, Source, read_documents


def read(kind, path="", *, stretch_bytes=10**9, **changes):
    source = Source("corpus", kind, str(path), **changes)
    stretches = list(KINDS[kind].stretches(source, stretch_bytes=stretch_bytes))
    return list(read_documents(source, stretches))


def test_text_parted_by_blank_lines(tmp_path):
    (tmp_path / "b.txt").write_bytes("\ufeffOne.\r\nTwo.\r\n\r\n \t\r\nThree é.".encode())
    (tmp_path / "a.txt").write_text("\n\nZero.\n\n")
    assert read("text", tmp_path) == [
        Document("a.txt#2", "Zero."),  # keys: the byte at which a document begins
        Document("b.txt#0", "One.\nTwo."),
        Document("b.txt#21", "Three é."),
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


def pack_zstd(content):
    """In two frames, as parallel packers write them."""
    return b"".join(pa.compress(part, codec="zstd", asbytes=True) for part in (content[:20], content[20:]))


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".zst", pack_zstd)]
)
def test_jsonl_packed_or_not(tmp_path, suffix, pack):
    lines = [json.dumps({"body": text, "id": 7}) for text in ("One.", "Two\nlines.", None)]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack("\n".join(lines).encode()))
    (tmp_path / "notes.md").write_text("not read")
    found = read("jsonl", tmp_path, text_column="body")
    assert [document.text for document in found] == ["One.", "Two\nlines.", ""]
    offsets = [sum(len(line) + 1 for line in lines[:number]) for number in range(3)]
    assert [document.key for document in found] == [f"a.jsonl{suffix}#{offset}" for offset in offsets]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"text": "a"}\n{"txt": "b"}', r"columns \['txt'\] in the line at byte 14 of"),
        ('{"text": "a"}\n{"text": ', "in the line at byte 14 of"),
        ('["a"]', "an array in the line at byte 0"),
        ('{"text": 3}', "text of type int in the line at byte 0"),
        ('{"text": "\\ud800"}', "half of a surrogate pair at character 0"),
        ("[" * 100_000, "in the line at byte 0"),
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
        Document("12", "\nFirst <paragraph>.\nSecond.\n", EXTRACTED),
        Document("13", "No title line.", EXTRACTED),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Hello.\n" + WIKIEXTRACTOR, "text outside <doc> at byte 0 of"),
        (WIKIEXTRACTOR + '<doc id="14" url="" title="D">\nD\n', "<doc id='14'> without </doc>"),
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


def multistream(text, *, pages_of_stream):
    """As Wikimedia writes it: a stream for the head, streams of whole pages, one for the end."""
    head, *pages = text.replace("<page>", "\0<page>").split("\0")
    pages[-1], end = pages[-1].replace("</mediawiki>", "\0</mediawiki>").split("\0")
    runs = ["".join(pages[i : i + pages_of_stream]) for i in range(0, len(pages), pages_of_stream)]
    return b"".join(bz2.compress(part.encode()) for part in (head, *runs, end))


def long_dump(num_pages):
    rng = random.Random(3)
    pages = [page(n, f"T{n}", "".join(rng.choices("abc \n", k=rng.randint(0, 900))) + "\n") for n in range(num_pages)]
    return "<mediawiki>\n" + "\n".join(pages) + "\n</mediawiki>"


def corpus_of_kind(kind, folder):
    """A file of the kind that can be cut, and how many documents it holds."""
    rng = random.Random(4)
    texts = ["\n".join("word " * rng.randint(1, 30) for _ in range(rng.randint(1, 9))) for _ in range(60)]
    if kind == "text":
        (folder / "a.txt").write_text("\n \t\n\n".join(texts))
    elif kind == "jsonl":
        (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    elif kind == "wikiextractor":
        docs = [f'<doc id="{n}" url="u" title="T{n}">\nT{n}\n\n{text}\n</doc>\n' for n, text in enumerate(texts)]
        (folder / "wiki_00").write_text("".join(docs))
    elif kind == "mediawiki":
        (folder / "a.xml").write_text(long_dump(60))
    elif kind == "multistream":
        (folder / "a.xml.bz2").write_bytes(multistream(long_dump(60), pages_of_stream=4))
    elif kind == "parquet":
        pq.write_table(pa.table({"n": list(range(60)), "text": texts}), folder / "a.parquet", row_group_size=7)
    elif kind == "arrow":
        table = pa.table({"text": texts})
        with pa.ipc.new_file(str(folder / "a.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=7)
    return {"multistream": "mediawiki"}.get(kind, kind), len(texts)


@pytest.mark.parametrize("kind", ["text", "jsonl", "wikiextractor", "mediawiki", "multistream", "parquet", "arrow"])
def test_cut_anywhere_the_documents_and_their_keys_are_the_same(tmp_path, kind):
    """The promise behind working on partitions apart: no document lost, doubled or torn, and none renamed."""
    kind, num_documents = corpus_of_kind(kind, tmp_path)
    source = Source("corpus", kind, str(tmp_path))
    (whole,) = KINDS[kind].stretches(source, stretch_bytes=10**9)
    assert whole.is_whole
    expected = list(read_documents(source, [whole]))
    assert len(expected) == len({document.key for document in expected}) == num_documents
    numbers = set()
    for stretch_bytes in (1, 50, 333, 1000, 1001, 1002, 1003, 5000):
        stretches = list(KINDS[kind].stretches(source, stretch_bytes=stretch_bytes))
        numbers.add(len(stretches))
        assert list(read_documents(source, stretches)) == expected
        parts = [list(read_documents(source, [stretch])) for stretch in reversed(stretches)]
        assert [document for part in reversed(parts) for document in part] == expected
    assert max(numbers) >= 8
    assert len(numbers) >= 2


def test_streams_that_end_in_mid_page_are_not_cut(tmp_path):
    """As parallel packers make them: many bz2 streams, but not between pages."""
    content = long_dump(60).encode()
    packed = b"".join(bz2.compress(content[i : i + 1000]) for i in range(0, len(content), 1000))
    (tmp_path / "a.xml.bz2").write_bytes(packed)
    source = Source("corpus", "mediawiki", str(tmp_path))
    (stretch,) = KINDS["mediawiki"].stretches(source, stretch_bytes=500)
    assert len(list(read_documents(source, [stretch]))) == 60


def test_a_truncated_multistream_dump_is_refused(tmp_path):
    packed = multistream(long_dump(60), pages_of_stream=4)
    for name, content in (("stream", packed[:-40]), ("end", packed[: packed.rindex(b"BZh91AY&SY")])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.xml.bz2").write_bytes(content)
        with pytest.raises(UserError, match="breaks off or is no XML"):
            read("mediawiki", tmp_path / name, stretch_bytes=1000)


def test_markdown_is_a_document_a_file(tmp_path):
    (tmp_path / "b.md").write_text("# Title\n\ntext\n")
    (tmp_path / "notes.txt").write_text("not read")
    assert read("markdown", tmp_path) == [Document("b.md", "# Title\n\ntext", MARKDOWN)]


def test_arrow_streams_as_datasets_keeps_them(tmp_path):
    datasets.Dataset.from_dict({"text": ["One.", "Two.", None]}).save_to_disk(tmp_path / "set")
    found = read("arrow", tmp_path / "set")
    assert [document.text for document in found] == ["One.", "Two.", ""]
    with pytest.raises(UserError, match=r"columns \['text'\].*a column 'body'"):
        read("arrow", tmp_path / "set", text_column="body")
    (path,) = (tmp_path / "set").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="that cannot be read as Arrow"):
        read("arrow", path)


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
    found = read("huggingface", dataset=str(tmp_path / "set"))
    assert found == [Document("0#0", "One."), Document("0#1", "Two."), Document("0#2", "Three.")]
    with pytest.raises(UserError, match="a column 'body'"):
        read("huggingface", dataset=str(tmp_path / "set"), text_column="body")


def test_a_damaged_file_of_a_data_set_is_our_line_alone(tmp_path, caplog):
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="that cannot be loaded"):
        read("huggingface", dataset=str(tmp_path))
    assert caplog.records == []


def test_huggingface_that_cannot_be_loaded(tmp_path):
    with pytest.raises(UserError, match=r"absent train that cannot be loaded.*sources\.corpus\.dataset"):
        read("huggingface", dataset=str(tmp_path / "absent"))


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet", "arrow", "wikiextractor", "mediawiki", "markdown"])
def test_no_file_is_refused(tmp_path, kind):
    for path in (tmp_path, tmp_path / "absent", tmp_path / "*.x"):
        with pytest.raises(UserError, match=r"no file at .*sources\.corpus\.path"):
            read(kind, path)
