"""wikiextractor's output is cleaned as a dump is: the right text of each case is written down.

Mutations that must turn it red: a sentence taken for a heading, a heading kept, a trace of markup left in a sentence.
"""

import pytest

from data_prep.documents.cleaning import KEPT, clean
from data_prep.documents.extracted import plain_text
from data_prep.documents.headings import is_heading
from data_prep.settings import Cleaning
from data_prep.sources import EXTRACTED, Document

HEADINGS = [
    "History", "Early life and education", "World War II", "The higher league years", "1990s", "Side A",
    "Relationship to Stein's personal life", "After the fall of communism", "Appearances in popular culture",
    "Cable and satellite television", "Formats and track listings", "Ford, GM, & Chrysler", "E11 in Poland (1177 km)",
    "Session 3 (Saturday and Sunday)", 'Relationship to "The Gold Bug"', "2013–14 season", "References",  # noqa: RUF001
]  # fmt: skip
SENTENCES = [
    "It closed in 1966.", "Khan died in 1733.", "He won.", "Gallium is a chemical element.", "They differ.",
    "The cast includes Ann Lee.", "Golfers play at the club.", "The town also had a tennis team.", "Ann wrote it.",
    "Bijuli means lightning.", "Both were lost.", "See also the list of moths.", "Ann has two sons.", "Who knows?",
    "The final was held on September 9.", "is uniformly convergent.", "Diplomatic relations began in 1974.",
    "Casinos operate in all metropolitan areas.", "Ann Lee (born 1960) is a pianist.", "Vienna. It lies on the Danube.",
    "The ship sank in 1912.", "The king sought peace.", "Caruso sang there in 1903.", "The bridge shook violently.",
    "The company sells cars.", "Water boils at 100 °C.", "Adults feed on nectar.", "Rebels overthrew him.",
    "The lake froze over.", "Ann teaches physics.", "Wolves eat meat.", "The last train left Oxford for ever.",
    "#MeToo is a movement against abuse.", "*NSYNC was a band.", "- Who is there? he asked, and they were silent.",
    "Etc...", "Students are required to wear school uniforms.", "An apple a day keeps the doctor away, they say.",
]  # fmt: skip


@pytest.mark.parametrize("heading", HEADINGS)
def test_headings(heading):
    assert is_heading(f"{heading}.", is_last=False, has_english_verbs=True)
    assert (
        plain_text(f"It was the first of the two.\n{heading}.\nIt was the last of them.")
        == "It was the first of the two.\nIt was the last of them."
    )


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences_stay(sentence):
    text = f"It was the first of the two.\n{sentence}\nIt was the last of them."
    assert plain_text(text) == text


def test_a_short_last_sentence_is_no_heading():
    assert plain_text("It is the life of the man.\nDeath in Venice.") == "It is the life of the man.\nDeath in Venice."
    assert plain_text("It is the life of the man.\nExternal links.") == "It is the life of the man."


def test_in_other_languages_only_a_single_word_is_a_heading():
    text = "Er lebte in Wien.\nEr starb 1990.\nGeschichte.\nKurz danach folgte der Krieg.\nDann endete alles dort."
    assert plain_text(text) == text.replace("Geschichte.\n", "")
    assert plain_text("東京は日本の首都です。\n人口が多い。\n終わり") == "東京は日本の首都です。\n人口が多い。\n終わり"


LINES = [
    ("Section::::History.", ""),
    ("BULLET::::- an item of a list that is long", ""),
    ("NUMBERED::::1. an item", ""),
    ("INDENT::::The words are the same.", "The words are the same."),
    ("where formula_1 is a function of formula_23, and the rest.", "where is a function of, and the rest."),
    ("Call codice_1 at the start.", "Call at the start."),
    ("Ann ( ; born 1960) (, ) is the mayor.", "Ann (born 1960) is the mayor."),
    ("It has an area of , and the rest.", "It has an area of, and the rest."),
    ("It is the first line.<br>It is the second.", "It is the first line.\nIt is the second."),
    ("It is <small>small</small> to the eye.</ref>", "It is small to the eye."),
    (
        'It is so.<ref name="a">Book, p. 3</ref> And <ref name="b"/> so on to the end.',
        "It is so. And so on to the end.",
    ),
    ("|- style=x", ""),
    ("!colspan=3|Final", ""),
    ("{| class=x", ""),
    ("[[Category:Moths of the world]]", ""),
    ("[[File:A.jpg|thumb|A picture that breaks off", ""),
    ("The [[moth|moths]] and the [[bees]].", "The moths and the bees."),
    ("It is the site [http://x.org] of the [http://x.org/y owner of it].", "It is the site of the owner of it."),
    ("http://x.org/y", ""),
    ("__NOTOC__", ""),
    ("__TOC__ The text is here.", "The text is here."),
    ("== External links ==", ""),
    ("=== External links: ===.", ""),
    ("If a == b and c == d it is so.", "If a == b and c == d it is so."),
    ("=" * 20_000 + " words below a rule.", "=" * 20_000 + " words below a rule."),
    ("[//x" * 20_000 + " of the end.", "[//x" * 20_000 + " of the end."),
    ("[//x.org" + " " * 20_000 + "words of the end.", "[//x.org words of the end."),
    ("It is bread &amp; butter &lt; the price&nbsp;of it.", "It is bread & butter < the price of it."),
    ("If &amp;lt; is written for the sign.", "If &lt; is written for the sign."),
    ("* an item of the list", ""),
    ("- Egypt", ""),
    ("** an item of an item", ""),
    ("#MeToo is what they said", "#MeToo is what they said"),
    ("Ann Lee - Vocals, Drums", ""),
    ("1038 (Grumel 845)", ""),
    ("Men", ""),
    ("The list of the moths:", "The list of the moths:"),
    ("It was about the time when", "It was about the time when"),
    ("a < b and c > d for the values.", "a < b and c > d for the values."),
    ("{{unread|template}} The rest is here.", "The rest is here."),
]


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_traces_of_markup(line, expected):
    around = "The text of the article is here, and it is for the reader."
    assert plain_text(f"{around}\n{line}\n{around}").split("\n")[1:-1] == expected.split("\n") * bool(expected)


def test_the_worker_cleans_it():
    text = "\nIt was the first of the two.\nHistory.\nIt was the last of them ( ).\n"
    assert clean(Document("1", text, EXTRACTED), Cleaning(min_characters=0)) == (
        "It was the first of the two.\nIt was the last of them.",
        KEPT,
    )
