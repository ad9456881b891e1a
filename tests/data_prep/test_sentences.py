"""Where a reader would end the sentences of English text: each case is written with "|" at its cuts.

Mutations that must turn it red: a closing mark left to the next sentence, an abbreviation that ends a sentence.
"""

# ruff: noqa: RUF001 (typographic marks are meant)

import pytest
import sentencex

from data_prep.documents.sentences import split_sentences

CLOSING = [
    "It is over.”| Then they left.",
    "It is over.’| Then they left.",
    'He said "Go."| Then he left.',
    "It is over.)| Then they left.",
    "It is over.]| Then they left.",
    "It is over.»| Then they left.",
    "It is over.”[3]| Then they left.",
    "It is over.[1]| Then they left.",
    "It is over.[1][22]| Then they left.",
    "It is over.[note 2]| Then they left.",
    "It is over. [4]| Then they left.",
    "It is over. ”| Then they left.",
    "The record was called “Over.”| It sold well.",
    "It was like that ever since.)",
    "They were ready to leave.”",
    "(They asked him why.) and he told them.",
    "(It was late.)| Then he left.",
    "He sat down.| (It was late.)| Then he left.",
    "He sat down (it was late).| Then he left.",
    "“It is cold,” she said.| “Go home.”| They went.",
    '"Is it far?" he asked.| "No."',
    'The film "Help!" (1965) was a success.| It ran for weeks.',
    'The town has three girls\' schools.| "Bas" means a place.',
    "(Old Mr. Smith of the U.S.) Grant knew him.",
]
ABBREVIATIONS = [
    "It is approx. 5 km away.| Then it ends.",
    "See Vol. 3 of the work.| It is long.",
    "See vol. II of the work.| It is long.",
    "See pp. 3–5 and p. 9 there.| It is long.",
    "It is No. 5 of ten.| It is long.",
    "He told them no.| They went home.",
    "See Fig. 3 and figs. 4–6 there.| It is long.",
    "See Ch. 3 there.| It is long.",
    "It is his Op. 5 for strings.| It is long.",
    "Smith, J., ed. London and its rivers.",
    "See the 3rd ed. Oxford, 1990.",
    "It is in its 3rd ed.| The first was short.",
    "Smith and Lee, eds. Rivers of Europe.",
    "It is the same in cf. Smith 1999 there.",
    "See e.g. Smith and i.e. Jones there.",
    "It was built ca. 1900 by them.| It is long.",
    "It was built c. July 1900 by them.| It is long.",
    "He met St. Mary there.| It was late.",
    "He climbed Mt. Everest twice.| It was cold.",
    "“Dr. Smith came,” she said.| Then he left.",
    "(Dr. Smith came late.)| Then he left.",
    "He saw them—Dr. Smith and Prof. Lee.| They left.",
    "He saw them – Dr. Smith and Rev. Lee.| They left.",
    "“J. Smith came,” she said.| Then he left.",
    "J. R. R. Tolkien wrote it.| It is long.",
    "Dr. Smith paid $3.50 to Mr. Jones.| He left!| Then it ended.",
    "Gen. Grant and Lt. Col. Smith met.| They talked.",
    "It is the U.S. Army that came.| It was late.",
    "He lived in the U.S.| The army came.",
    "He came at 5 p.m.| The others had left.",
    "Smith et al. found it in 1990.| It is long.",
    "It is Apple Inc.| The firm is old.",
    "He was born on Jan. 5, 2000.| It was cold.",
    "He came in Dec.| The winter was cold.",
    "It is Smith vs. Jones again.| It is long.",
    "He likes plan B.| The others do not.",
]


@pytest.mark.parametrize("marked", [*CLOSING, *ABBREVIATIONS])
def test_where_sentences_end(marked):
    assert split_sentences(marked.replace("|", "")) == [sentence.strip() for sentence in marked.split("|")]


def test_sentencex_alone_gets_a_quarter_of_them_wrong():
    """When it gets them right, the corrections can go."""
    marked = [*CLOSING, *ABBREVIATIONS]
    wrong = [
        case
        for case in marked
        if [found.strip() for found in sentencex.segment("en", case.replace("|", ""))]
        != [sentence.strip() for sentence in case.split("|")]
    ]
    assert len(marked) == 60
    assert len(wrong) >= 15
