"""Which files a source reads, and what is refused by content: a folder as it is found on real disks.

Mutations that must turn it red: links to folders not followed, a circle entered, a hidden folder read, an archive taken
for text, a carriage return that ends no line, NUL read as text, a sound file called damaged.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import time
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_lamb.errors import UserError
from data_prep.documents.cleaning import clean
from data_prep.settings import Cleaning
from data_prep.sources import KINDS, Source, describe_passed_over, read_documents
from data_prep.sources.listing import list_files


def by_gzip(data):
    """Packed, without the time of day, which would be part of the names of tests."""
    return gzip.compress(data, mtime=0)


def documents(path, kind="text", *, stretch_bytes=10**9, **changes):
    source = Source("corpus", kind, str(path), **changes)
    stretches = tuple(KINDS[kind].stretches(source, stretch_bytes=stretch_bytes))
    return list(read_documents(source, stretches))


def keys(path, kind="text"):
    listing = list_files(Source("corpus", kind, str(path)), suffixes=KINDS[kind].suffixes)
    return [key for key, _ in listing.files], dict(listing.passed_over)


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"Text of {name}.")


def test_brackets_in_the_name_of_a_folder_are_its_name(tmp_path):
    write(tmp_path, "data [old]/a.txt", "data [old]/b [1]/c.txt", "data o/d.txt", "x1/e.txt", "x2/f.txt", "x3/g.txt")
    assert keys(tmp_path / "data [old]/*.txt")[0] == ["a.txt"]
    assert keys(tmp_path / "data [old]/**/*.txt")[0] == ["a.txt", "b [1]/c.txt"]
    assert keys(tmp_path / "data [old]/b [1]/[a-c].txt")[0] == ["c.txt"]
    assert keys(tmp_path / "data [old]")[0] == ["a.txt", "b [1]/c.txt"]
    assert keys(tmp_path / "x[12]/*.txt")[0] == ["x1/e.txt", "x2/f.txt"]
    write(tmp_path, "*/h.txt")
    assert keys(tmp_path / "*/[eh].txt")[0] == ["*/h.txt", "x1/e.txt"]


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a"}, {"text": "b"}]',
        '[\n{"text": "a"},\n{"text": "b"}\n]',
        '[{"text": "a"},\n{"text": "b"}]',
        '{\n  "text": "a"\n}',
        '{"text": "a"}\n{"text": "b"},\n{"text": "c"}',
        "[]",
    ],
)
def test_json_that_is_no_lines_is_told_how_to_become_them(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"at byte \d+ of .*JSON array or an object over several lines.*jq -c '\.\[\]'"):
        documents(tmp_path / "a.json", "jsonl")
    (tmp_path / "a.json").write_text('{"text": "a"}\n{"text": "b}')
    with pytest.raises(UserError, match=r"at byte 14 of .*correct the file"):
        documents(tmp_path / "a.json", "jsonl")


def test_links_are_followed_with_the_keys_of_the_pattern(tmp_path):
    write(tmp_path, "corpus/a.txt", "disk2/b.txt", "disk2/deep/c.txt", "disk3/d.txt")
    (tmp_path / "corpus/part2").symlink_to(tmp_path / "disk2")
    (tmp_path / "corpus/d.txt").symlink_to("../disk3/d.txt")
    expected = ["a.txt", "d.txt", "part2/b.txt", "part2/deep/c.txt"]
    assert keys(tmp_path / "corpus") == (expected, {})
    assert keys(tmp_path / "corpus/**/*.txt") == (expected, {})
    (tmp_path / "link").symlink_to("corpus")
    assert keys(tmp_path / "link")[0] == expected


def test_circles_of_links_end_and_nothing_is_read_twice(tmp_path):
    """Two links back to the top: followed blindly, 2^40 paths."""
    write(tmp_path, "a/1.txt", "b/2.txt")
    for folder in ("a", "b"):
        (tmp_path / folder / "up").symlink_to("..")
        (tmp_path / folder / "same").symlink_to(".")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "latest").symlink_to("b")  # no circle, but the same text by a second path
    (tmp_path / "b/copy.txt").symlink_to("2.txt")
    started_at = time.monotonic()
    assert keys(tmp_path)[0] == keys(tmp_path / "**" / "*.txt")[0] == ["a/1.txt", "b/2.txt"]
    assert keys(tmp_path)[1] == {"read already by another path": 6, "link that leads nowhere": 1}
    assert keys(tmp_path / "*/*.txt")[0] == ["a/1.txt", "b/2.txt"]
    assert time.monotonic() - started_at < 5


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, kind):
    """It may be a folder on a disk that is not mounted."""
    write(tmp_path, "a.txt", "a.jsonl")
    (tmp_path / "part2").symlink_to("/absent/part2")
    for path in (tmp_path, tmp_path / "**/a.*"):
        assert keys(path, kind)[1]["link that leads nowhere"] == 1
    assert "1 link that leads nowhere (part2)" in describe_passed_over((Source("c", kind, str(tmp_path)),))
    with pytest.raises(UserError, match=r"no file at .*part2 \(passed over: 1 link that leads nowhere"):
        keys(tmp_path / "part2")


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    """Its text would be lost; root cannot be shown this by permissions."""
    write(tmp_path, "a.txt", "secret/b.txt")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for path in (tmp_path, tmp_path / "**" / "*.txt"):
        with pytest.raises(UserError, match="secret that cannot be read"):
            keys(path)


def test_what_is_no_data_is_passed_over_by_reason(tmp_path):
    taken = ["a.txt", "b", "part-00000", "sub.d/c.txt.gz", "wiki.train", "license to kill.txt", "_draft.txt"]
    by_reason = {
        "hidden": [".cache/x.txt", ".git/x", ".ipynb_checkpoints/a-checkpoint.txt", ".a.swp", "__MACOSX/x.txt"],
        "backup or unfinished": ["a.txt~", "#a.txt#", "a.txt.bak", "b.txt.part", "c.txt.crdownload", "d.tmp"],
        "checksum or signature": ["a.txt.md5", "SHA256SUMS", "a.txt.asc"],
        "readme, license or mark": ["README", "README.md", "sub.d/readme.txt", "LICENSE.txt", "_SUCCESS", "Thumbs.db"],
        "archive": ["a.zip", "old.tar.gz", "b.7z"],
        "document with pages": ["a.pdf", "b.DOCX"],
        "picture, sound or film": ["cover.jpg"],
        "data in another form": ["meta.json", "conf.yaml", "a.jsonl.gz", "page.html"],
        "program, settings or log": ["clean.py", "run.log"],
    }
    write(tmp_path, *taken, *(name for names in by_reason.values() for name in names))
    (tmp_path / "empty.txt").touch()
    os.mkfifo(tmp_path / "pipe")
    expected = {reason: len(names) for reason, names in by_reason.items()} | {"empty": 1, "no regular file": 1}
    assert keys(tmp_path) == (sorted(taken), expected)
    assert keys(tmp_path / "**") == keys(tmp_path)  # wildcards alone ask for nothing either
    assert keys(tmp_path / "*.json")[0] == ["meta.json"]  # named: taken
    assert keys(tmp_path / "README.md")[0] == ["README.md"]
    assert keys(tmp_path / "**/read*")[0] == ["sub.d/readme.txt"]
    assert keys(tmp_path, "jsonl") == (
        ["a.jsonl.gz", "meta.json"],
        {reason: expected[reason] for reason in list(by_reason)[:4]} | {"of another suffix": 19},
    )


def test_dumps_in_parts_are_named_by_their_pages(tmp_path):
    """As on dumps.wikimedia.org, packed and unpacked; the index of a part is none."""
    parts = [
        "enwiki-20240501-pages-articles1.xml-p1p41242.bz2",
        "enwiki-20240501-pages-articles27.xml-p75507216p76894044",
        "enwiki-20240501-pages-articles-multistream2.xml-p41243p151573.bz2",
        "dewiki-20240501-pages-articles1.XML-p1p297012.gz",
        "enwiki-latest-pages-articles1.xml-p000000010p000030302.bz2",
        "enwiki-20240501-pages-articles.xml.bz2",
    ]
    others = [
        "enwiki-20240501-pages-articles-multistream-index1.txt-p1p41242.bz2",
        "enwiki-20240501-pages-articles1.xmlp1p41242",
        "enwiki-20240501-pages-articles1.xml-p1.bz2",
    ]
    write(tmp_path, *parts, *others)
    for name in parts:  # of what they are, since the content is looked at as well
        content = b"<mediawiki></mediawiki>"
        packed = {".bz2": bz2.compress, ".gz": gzip.compress}.get(name[name.rindex(".") :], bytes)(content)
        (tmp_path / name).write_bytes(packed)
    assert keys(tmp_path, "mediawiki") == (sorted(parts), {"of another suffix": 3})
    assert keys(tmp_path / "**", "mediawiki")[0] == sorted([*parts, *others])
    assert keys(tmp_path / "enwiki-*.xml-p*.bz2", "mediawiki")[0] == sorted([parts[0], parts[2], parts[4], others[2]])
    assert keys(tmp_path, "text") == (sorted(others), {"data in another form": 6})


def tar(*members, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name in members:
            member = tarfile.TarInfo(name)
            member.size = 6
            archive.addfile(member, io.BytesIO(b"Text.\n"))
    return stream.getvalue()


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("word/document.xml"), "<w/>")  # of 1980, whenever it runs
    return stream.getvalue()


TEXT = "\n\n".join(f"A quiet river runs past house number {n}." for n in range(300)).encode()
PAGE = b"<html><body>" + TEXT
V7_HEADER = bytearray(tar("a.txt"))
V7_HEADER[257:265] = bytes(8)  # no "ustar", as tars of the seventies
V7_HEADER[148:156] = b"        "
V7_HEADER[148:156] = b"%06o\0 " % sum(V7_HEADER[:512])


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt.gz", by_gzip(tar("a.txt", "b.txt")), "a tar archive.*unpack it"),
        ("a.xz", lzma.compress(tar("a.txt")), "a tar archive"),
        ("a.zst", pa.compress(tar("a.txt"), codec="zstd", asbytes=True), "a tar archive"),
        ("a.tar.bz2", bz2.compress(tar("a.txt")), "a tar archive"),
        ("books", tar("a.txt"), "a tar archive"),
        ("old", bytes(V7_HEADER), "a tar archive"),
        ("a.txt", zipped(), "a zip archive"),
        ("a.docx", zipped(), "a zip archive"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive"),
        ("a.rar", b"Rar!\x1a\x07\x01\x00", "a rar archive"),
        ("a.pdf", b"%PDF-1.7\n" + TEXT, "a PDF document"),
        ("a.txt", b"{\\rtf1 " + TEXT, "Rich Text"),
        ("a.txt", by_gzip(TEXT), r"packed with gzip.*name that ends in \.gz"),
        ("a.txt", bz2.compress(TEXT), r"packed with bzip2.*name that ends in \.bz2"),
        ("a.gz", bz2.compress(TEXT), "packed with bzip2"),
        ("a.bz2", by_gzip(TEXT), "packed with gzip"),
        ("a.txt.gz", TEXT, r"not packed at all; .*take \.gz off its name"),
        ("a.gz", by_gzip(by_gzip(TEXT)), "unpacked, which by its content is packed with gzip"),
        ("a.lz4", b"\x04\x22\x4d\x18d@\xa7" + TEXT, "packed with lz4"),
        ("a.lzma", lzma.compress(TEXT, lzma.FORMAT_ALONE), "packed with lzma"),
        ("a.Z", b"\x1f\x9d\x90" + TEXT, "packed with compress"),
        ("a.txt", TEXT.decode().encode("utf-16"), "in UTF-16.*iconv -f utf-16 "),
        ("a.txt", TEXT.decode().encode("utf-16-le"), "a NUL byte, as in UTF-16.*iconv"),
        ("a.txt", TEXT.decode().encode("utf-32"), "in UTF-32"),
        ("a.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer.*git lfs pull"),
        ("a.txt", json.dumps({"text": "a"}).encode() + b"\n", r"JSON lines.*sources\.corpus\.kind=jsonl"),
        ("a.txt", b'<mediawiki xmlns="x">\n<page>', "a MediaWiki dump.*kind=mediawiki"),
        ("a.txt", b'<doc id="1" url="u" title="t">\n', "output of wikiextractor.*kind=wikiextractor"),
        ("a.txt", PAGE, "an HTML page"),
        ("a.txt", b" \n = Title = \n \n A river . \n", "in the form of WikiText.*kind=wikitext"),
        ("a.txt", b"a well @-@ known , 1 @,@ 000 @.@ 5 thing .\n", "tokenized text"),
        ("a.txt", TEXT + b"\0" + TEXT, f"a NUL byte, which no text holds, at byte {len(TEXT)} of"),
        ("a.txt.gz", by_gzip(TEXT * 20 + b"\0"), f"a NUL byte, which no text holds, at byte {len(TEXT) * 20} of"),
    ],
)
def test_what_is_no_text_by_its_content_is_refused(tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        documents(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind", "content", "complaint"),
    [
        ("a.jsonl", "jsonl", json.dumps({"text": "a"}).encode("utf-16"), "in UTF-16"),
        ("a.jsonl.gz", "jsonl", by_gzip(tar("a.jsonl")), "a tar archive"),
        ("a.jsonl", "jsonl", zipped(), "a zip archive"),
        ("a.parquet", "parquet", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        ("a.parquet.gz", "parquet", by_gzip(b"PAR1"), "packed with gzip"),
        ("a.parquet", "parquet", b"ARROW1\0\0" + bytes(90), "an Arrow file.*kind=arrow"),
        ("a.arrow", "arrow", b"PAR1\x15\x04" + bytes(90), "a Parquet file.*kind=parquet"),
        ("a.feather", "arrow", b"FEA1\0\0\0\0", "Feather file of version 1"),
        ("a.md", "markdown", zipped(), "a zip archive"),
        ("wiki_00", "wikiextractor", tar("wiki_00"), "a tar archive"),
        ("a.xml.bz2", "mediawiki", bz2.compress(tar("a.xml")), "a tar archive"),
        ("a.xml.bz2", "mediawiki", b"<mediawiki>", "not packed at all"),
    ],
)
def test_the_same_for_other_kinds(tmp_path, name, kind, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        documents(tmp_path / name, kind)


@pytest.mark.parametrize("text", ["PAR1 receptors.", "LZIP is a program.", "%PDF is a mark. = Not a title =", "{a} b"])
def test_text_that_begins_like_something_else(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert [document.text for document in documents(tmp_path)] == [text]


def texts_of(path, content, **changes):
    path.write_bytes(content)
    return [document.text for document in documents(path, **changes)]


@pytest.mark.parametrize("stretch_bytes", [10**9, 1, 100, 333])
def test_carriage_returns_alone_end_lines(tmp_path, stretch_bytes):
    """60 documents, wherever the file is cut."""
    expected = [f"First line of {n}.\nSecond é." for n in range(60)]
    for end in ("\r", "\n", "\r\n", "\r\r\n"):
        content = f"{end}{end}".join(expected).replace("\n", end) if end == "\r" else None
        content = content or f"{end}{end}".join(text.replace("\n", end) for text in expected)
        assert texts_of(tmp_path / "a.txt", content.encode(), stretch_bytes=stretch_bytes) == expected
    packed = by_gzip("\r\r".join(expected).replace("\n", "\r").encode())
    assert texts_of(tmp_path / "a.txt.gz", packed) == expected


def test_line_ends_at_the_ends_of_what_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.sources.files.LINES_BYTES", 3)
    content = b"\xef\xbb\xbfab\rc\r\rdefghi\r\r\njk\r\n\r\nl\r \r\xc3\xa9m\x1a"
    assert texts_of(tmp_path / "a.txt", content) == ["ab\nc", "defghi\njk", "l", "ém"]
    monkeypatch.undo()
    assert texts_of(tmp_path / "a.txt", content) == ["ab\nc", "defghi\njk", "l", "ém"]
    for end in ("\n\x1a", "\n\x1a\r\n", "\n\x1a\n\n"):
        assert texts_of(tmp_path / "a.jsonl", b'{"text": "a"}' + end.encode(), kind="jsonl") == ["a"]
    # Files put together, each with its mark.
    lines = b'\xef\xbb\xbf{"text": "a"}\r{"text": "b"}\r\n\xef\xbb\xbf{"text": "c"}'
    assert texts_of(tmp_path / "a.jsonl", lines, kind="jsonl") == ["a", "b", "c"]


def test_documents_with_control_characters_are_left_out_and_counted(tmp_path):
    bad = ["one\0two", "bell\x07", "\x1b[31mred", "don\x92t", "x\x7f"]
    good = ["page\x0cbreak", "vertical\x0btab", "next\x85line", "tab\tand\u2028line", "\ufeffmark"]
    table = pa.table({"text": bad + good})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as file:
        file.write_table(table)
    (tmp_path / "set").mkdir()
    for path in (tmp_path / "a.jsonl", tmp_path / "set" / "train.jsonl"):
        path.write_text("\n".join(json.dumps({"text": text}) for text in bad + good))
    found = [documents(tmp_path / f"a.{kind}", kind) for kind in ("parquet", "arrow", "jsonl")]
    found.append(documents("", "huggingface", dataset=str(tmp_path / "set")))
    for of_kind in found:
        outcomes = [clean(document, Cleaning(min_characters=1))[1] for document in of_kind]
        assert outcomes == ["control_characters"] * len(bad) + [""] * len(good)


def skippable(data=b"12345"):
    return b"\x5f\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def zstd(content):
    return pa.compress(content, codec="zstd", asbytes=True)


SOUND = {
    "members.gz": by_gzip(TEXT[:99]) + by_gzip(TEXT[99:]),
    "zeros.gz": by_gzip(TEXT) + bytes(512),
    "zeros between.gz": by_gzip(TEXT[:99]) + bytes(9) + by_gzip(TEXT[99:]),
    "upper case.GZ": by_gzip(TEXT),
    "streams.bz2": bz2.compress(TEXT[:99]) + bz2.compress(TEXT[99:]),
    "empty first.bz2": bz2.compress(b"") + bz2.compress(TEXT),
    "sha256.xz": lzma.compress(TEXT, check=lzma.CHECK_SHA256),
    "filters.xz": lzma.compress(TEXT, filters=[{"id": lzma.FILTER_DELTA, "dist": 1}, {"id": lzma.FILTER_LZMA2}]),
    "padding.xz": lzma.compress(TEXT[:99]) + bytes(4) + lzma.compress(TEXT[99:]),
    "frames.zst": zstd(TEXT[:99]) + zstd(TEXT[99:]),
    "skippable.zst": skippable() + zstd(TEXT[:99]) + skippable(b"") + zstd(TEXT[99:]) + skippable(),
    "mark.txt": b"\xef\xbb\xbf" + TEXT,
    "dos.txt": TEXT.replace(b"\n", b"\r\n") + b"\x1a",
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_files_are_read(tmp_path, name):
    """As packers and their users write them, out of the ordinary but right."""
    assert texts_of(tmp_path / name, SOUND[name]) == TEXT.decode().split("\n\n")


def long_window_zst(window_log):
    """A frame by hand (RFC 8878): a window of 2^window_log bytes, one raw block, the last."""
    block = TEXT[:1000]
    header = b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3])
    return header + ((len(block) << 3) | 1).to_bytes(3, "little") + block


@pytest.mark.parametrize("name", ["a.txt.zst", "a.jsonl.zst", "a.xml.zst"])
def test_a_long_window_is_no_damage(tmp_path, name):
    kind = {"txt": "text", "jsonl": "jsonl", "xml": "mediawiki"}[name.split(".")[1]]
    (tmp_path / "b.txt.zst").write_bytes(long_window_zst(27))
    assert "".join(d.text for d in documents(tmp_path / "b.txt.zst")).startswith("A quiet river")
    for window_log in (28, 30, 31):
        (tmp_path / name).write_bytes(long_window_zst(window_log))
        with pytest.raises(UserError, match=r"window above 128 MB, .* not supported.*zstd -dc --long=31") as caught:
            documents(tmp_path / name, kind)
        assert "need not be damaged" in str(caught.value)
        assert "fetch it again" not in str(caught.value)


def test_what_follows_an_archive_is_not_called_damage_alone(tmp_path):
    """Packers pass over garbage after the end with a warning. Damage at the head of a later stream looks the same."""
    for suffix, packed in ((".gz", by_gzip(TEXT)), (".bz2", bz2.compress(TEXT)), (".zst", zstd(TEXT))):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(packed + b"garbage")
        with pytest.raises(UserError, match=r"nothing after its end; fix: check it with \w+ -t"):
            documents(path)
        path.write_bytes(packed[:-9])
        with pytest.raises(UserError, match=r"check it with \w+ -t.*else fetch it again"):
            documents(path)


def test_parquet_that_is_not_supported_is_not_called_damaged(tmp_path):
    """Its codec changed in the footer, from GZIP to LZO, which no reader of Arrow has."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["One.", "Two."]}), path, compression="gzip")
    content = path.read_bytes()
    gzip_codec, lzo_codec = b"\x15\x04\x16", b"\x15\x06\x16"  # Thrift's field header, zigzag of 2 and 3, the next field
    assert content.count(gzip_codec, len(content) // 3) >= 1
    path.write_bytes(lzo_codec.join(content.rsplit(gzip_codec, 1)))
    with pytest.raises(UserError, match=r"of a form of Parquet that is not supported.*LZO"):
        documents(path, "parquet")


def test_empty_files_hold_nothing_and_are_named(tmp_path):
    write(tmp_path, "a.txt")
    for name in ("b.txt", "c.txt.gz"):
        (tmp_path / name).touch()
    assert keys(tmp_path) == (["a.txt"], {"empty": 2})
    (tmp_path / "d.parquet").touch()
    with pytest.raises(UserError, match=r"d\.parquet that cannot be read"):
        documents(tmp_path, "parquet")


def test_the_same_as_the_programs_say(tmp_path):
    """The hand-made frame above against zstd itself, where it is installed."""
    if subprocess.run(["sh", "-c", "command -v zstd"], capture_output=True, check=False).returncode:
        pytest.skip("no zstd")
    (tmp_path / "a.zst").write_bytes(long_window_zst(30))
    refused = subprocess.run(["zstd", "-t", tmp_path / "a.zst"], capture_output=True, check=False)
    tested = subprocess.run(["zstd", "-t", "--long=31", tmp_path / "a.zst"], capture_output=True, check=False)
    assert (refused.returncode, tested.returncode) == (1, 0)
