"""The page of answers, read by a parser and compared with what stands in the questions, and with values by hand.

Mutations that must turn it red: the first place of a text although another is a true answer, true answers that are not
marked, right answers first, a category whose questions nothing selects, a stretch of a long context that is lost.
"""

import json
import re
from html.parser import HTMLParser

import pytest

from bert_lamb.cli import main as cli
from bert_lamb.finetuning.squad.answers_page import write_answers_page
from bert_lamb.finetuning.squad.examples import Answer, Example, Questions

RIVER = "The Rhine is long. A barge on the Rhine <b>passes</b> the old town of Köln 🚢 & Bonn."


def question(question_id, text, *answers, context=RIVER):
    spans = [answer if isinstance(answer, tuple) else (answer, context.index(answer)) for answer in answers]
    return Example(question_id, text, context, tuple(Answer(*span) for span in spans))


QUESTIONS = Questions(
    [
        question("right", "What is long?", "Rhine", "The Rhine"),
        question("second", "On what does a barge sail?", ("the Rhine", RIVER.index("the Rhine", 20))),
        question("partial", "Whose town does it pass?", "the old town of Köln 🚢 & Bonn"),
        question("wrong", "In which town is it?", "Köln"),
        question("missed", "Which city comes last?", "Bonn"),
        question("invented", "How deep is it?"),
        question("rightly none", "Name the captain."),
        question("absent", "Where does it sail?", "on the Rhine"),
    ],
    "2.0",
)
PREDICTIONS = {
    "right": "Rhine",
    "second": "Rhine",
    "partial": "old town of Köln 🚢",
    "wrong": "Bonn",
    "missed": "",
    "invented": "long",
    "rightly none": "",
}


class Page(HTMLParser):
    """Articles by id: classes, and the context as (text, marks)."""

    def __init__(self, text):
        super().__init__()
        self.articles, self.order, self.rows, self.ids, self.tags = {}, [], [], [], set()
        self._article, self._context, self._marks, self._cell = None, None, "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        self.ids += [given["id"]] if tag == "input" else []
        if tag == "article":
            self._article = given["id"]
            self.order.append(given["id"])
            self.articles[given["id"]] = {"classes": given["class"].split(), "context": [], "said": ""}
        elif tag == "mark":
            self._marks = given["class"]
        elif tag == "p":
            self._context = given.get("class") == "context"
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        self._marks = "" if tag == "mark" else self._marks
        self._cell = None if tag in ("td", "th") else self._cell
        self._article = None if tag == "article" else self._article
        self._context = False if tag == "p" else self._context

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data.strip()
        elif self._article and self._context:
            self.articles[self._article]["context"].append((data, self._marks))
        elif self._article:
            self.articles[self._article]["said"] += data

    def marked(self, question_id, mark):
        """The characters of the context that carry a mark, as ranges of it, touching ones joined."""
        spans, place = [], 0
        for text, marks in self.articles[question_id]["context"]:
            if mark in marks.split():
                if spans and spans[-1][1] == place:
                    spans[-1] = (spans[-1][0], place + len(text))
                else:
                    spans.append((place, place + len(text)))
            place += len(text)
        return spans


def page_of(folder, questions=QUESTIONS, predictions=PREDICTIONS, **more):
    write_answers_page(folder / "answers.html", questions, predictions, title="t & <u>", **more)
    return Page((folder / "answers.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("page"))


def test_every_context_is_there_with_its_answers_marked(page):
    for example in QUESTIONS:
        assert "".join(text for text, _ in page.articles[example.id]["context"]) == example.context
        covered = {place for one in example.answers for place in range(one.start, one.start + len(one.text))}
        assert {place for span in page.marked(example.id, "true") for place in range(*span)} == covered


def test_the_prediction_is_marked_where_it_is_right(page):
    second = RIVER.index("Rhine", 20)
    assert page.marked("right", "predicted") == [(4, 9)]
    assert page.marked("second", "predicted") == [(second, second + 5)]
    assert "(2 places)" in page.articles["second"]["said"]
    assert page.marked("wrong", "predicted") == [(RIVER.index("Bonn"), RIVER.index("Bonn") + 4)]
    assert page.marked("missed", "predicted") == page.marked("absent", "predicted") == []


def test_wrong_answers_come_first(page):
    assert page.order == ["absent", "invented", "missed", "wrong", "partial", "right", "second", "rightly none"]


def test_the_tables_count_and_score_each_category(page):
    figures = {row[0]: row[1:] for row in page.rows}
    f1 = 100 * 2 * 1 * (5 / 6) / (1 + 5 / 6)  # five of six words: "the" and "&" are none, the ship is one
    assert figures["wrong, some words in common"] == ["1", "0.00", f"{f1:.2f}"]
    assert figures["right"] == ["3", "100.00", "100.00"]
    assert figures["which"] == ["2", "0.00", "0.00"]
    assert figures["what"] == ["2", "100.00", "100.00"]
    assert figures["who"][0] == "1"  # whose
    assert figures["other"] == ["1", "100.00", "100.00"]
    assert [figures[f"{n} words"][0] for n in ("2-3", "8+")] == ["2", "1"]
    assert (figures["no answer"][0], figures["1 word"][0]) == ("2", "3")
    for part in range(3):
        counts = [[int(row[1]) for row in rows] for rows in tables_of(page)]
        assert sum(counts[part]) == len(QUESTIONS)


def tables_of(page):
    heads = [i for i, row in enumerate(page.rows) if row[0].endswith(": all")]
    return [page.rows[a + 1 : b] for a, b in zip(heads, [*heads[1:], None], strict=True)]


def test_each_choice_leaves_its_questions_and_no_others(page, tmp_path):
    page_of(tmp_path)
    text = (tmp_path / "answers.html").read_text(encoding="utf-8")
    hidden = dict(re.findall(r"body:has\(#([\w-]+):checked\) article:not\(\.([\w-]+)\) \{ display: none; \}", text))
    assert hidden.keys() == {one for one in page.ids if not one.endswith("-0")}
    rows = [row for table in tables_of(page) for row in table]
    left = [sum(mark in one["classes"] for one in page.articles.values()) for mark in hidden.values()]
    assert left == [int(row[1]) for row in rows]
    assert "script" not in page.tags
    assert "u" not in page.tags  # of the title


def test_long_contexts_are_shown_around_their_marks(tmp_path):
    long = "x " * 3000 + "gold " + "y " * 3000 + "brass " + "z " * 3000
    page = page_of(tmp_path, Questions([question("a", "Why?", "gold", context=long)], "1.1"), {"a": "brass"})
    shown = "".join(text for text, _ in page.articles["a"]["context"])
    assert len(shown) < 2000
    passages = [passage for passage in shown.split(" … ") if passage.strip()]
    assert [passage in long for passage in passages] == [True, True]
    assert "x gold y" in passages[0]
    assert "y brass z" in passages[1]


def test_na_prob_above_the_threshold_is_no_answer(tmp_path):
    na_probs = dict.fromkeys(PREDICTIONS, 0.0) | {"invented": 0.9, "right": 0.9}
    page = page_of(tmp_path, na_probs=na_probs, na_prob_thresh=0.5)
    figures = {row[0]: row[1:] for row in page.rows}
    assert figures["no answer where there is one"][0] == "2"
    assert figures["right"][0] == "3"  # the invented one for the right one
    assert "an answer where there is none" not in figures


def squad_file(folder):
    qas = [
        {
            "id": one.id,
            "question": one.question,
            "answers": [{"text": a.text, "answer_start": a.start} for a in one.answers],
        }
        for one in QUESTIONS
    ]
    (folder / "data.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": RIVER, "qas": qas}]}]}))
    (folder / "said.json").write_text(json.dumps(PREDICTIONS))
    return [f"data={folder / 'data.json'}", f"predictions={folder / 'said.json'}"]


def test_score_writes_the_page_beside_the_figures(tmp_path, capsys):
    files = squad_file(tmp_path)
    assert cli.main(["score", *files]) == 0
    figures = capsys.readouterr().out
    assert cli.main(["score", *files, f"page={tmp_path / 'answers.html'}"]) == 0
    assert capsys.readouterr().out == figures
    assert Page((tmp_path / "answers.html").read_text(encoding="utf-8")).order[0] == "absent"


def test_half_a_surrogate_pair_in_a_prediction_is_a_question_mark(tmp_path):
    """Json may hold one, and the official script scores it; UTF-8 cannot."""
    files = squad_file(tmp_path)
    said = json.loads((tmp_path / "said.json").read_text())
    (tmp_path / "said.json").write_text(json.dumps({**said, next(iter(said)): "half \ud800 a pair"}))
    assert cli.main(["score", *files, f"page={tmp_path / 'answers.html'}"]) == 0
    assert "half ? a pair" in (tmp_path / "answers.html").read_text(encoding="utf-8")


def test_a_page_never_replaces_data(tmp_path, capsys):
    files = squad_file(tmp_path)
    assert cli.main(["score", *files, f"page={tmp_path / 'data.json'}"]) == 2
    assert "page" in capsys.readouterr().err
    broken = tmp_path / "data.json"
    broken.write_text(broken.read_text().replace('"answer_start": 4', '"answer_start": 5'))
    assert cli.main(["score", *files, f"page={tmp_path / 'answers.html'}"]) != 0
    assert "answer_start=5" in capsys.readouterr().err
    assert not (tmp_path / "answers.html").exists()
