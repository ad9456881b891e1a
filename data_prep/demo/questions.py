"""World Factbook template questions: a small extractive question-answering set in SQuAD v1.1 json, for the demo.

Each paragraph states four to eight facts of one theme about one country, in shuffled order and changing words, several
of them of the same kind (three areas, three ages, ...). So the kind of the answer and its place do not give it away:
the statement that the question asks for has to be found. The questions use other words than the statements at times.
"""

import hashlib
import html
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NAME = "World Factbook template questions"
NUM_EVALUATION_COUNTRIES = 49
NUM_TRAIN_COUNTRIES = 200
MAX_FACTS_PER_PARAGRAPH = 8
MIN_FACTS_PER_PARAGRAPH = 4  # fewer candidates would make it too easy
QUESTIONS_PER_PARAGRAPH = 4
MAX_ANSWER_WORDS = 8

SQUARE_KM = r"([\d.,]+ sq km)\b"
KM = r"([\d.,]+ km)\b"
NUMBER = r"([\d.,]+\d)(?= \(|$)"
YEARS = r"([\d.]+ years)\b"
PERCENT = r"(-?[\d.]+%)"
PLACE = r"([^\d(;,]*[^\d(;,\s])(?= -?[\d.,]+ m\b)"
DATE = r"(\d{1,2} [A-Z][a-z]+ \d{4})\b"
FIRST_PARTNER = r"([A-Z][A-Za-z.&' ]*?) [\d.]+%"
FIRST_ITEM = r"([a-z][^,;:()]*[^,;:()\s])(?=[,;( ]|$)"
PHRASE = r"([^,;:()\"]*[^,;:()\"\s])(?=[,;( ]|$)"
DOLLARS = r"(\$[\d.,]+(?: (?:million|billion|trillion))?)"

TAG = re.compile(r"<[^>]*>")
BREAK_TAG = re.compile(r"<(?:br|/?p|/?div|/?li|/?ul)\b[^>]*>", re.IGNORECASE)
SPACES = re.compile(r"[^\S\n]+")


@dataclass(frozen=True)
class Fact:
    """Something the factbook tells of most countries, how to state it and how to ask for it.

    path: the names of the nested fields. pattern: matched at the start of the field's text, its group is the answer.
    The templates know {country}, and the statements {answer}.
    """

    path: tuple[str, ...]
    pattern: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def _fact(path: str, pattern: str, statements: tuple[str, ...], questions: tuple[str, ...]) -> Fact:
    return Fact(tuple(path.split("/")), pattern, statements, questions)


THEMES: dict[str, tuple[Fact, ...]] = {
    "land": (
        _fact(
            "Geography/Area/total ",
            SQUARE_KM,
            ("The total area of {country} is {answer}.", "{country} covers {answer} in total."),
            ("What is the total area of {country}?", "How large is {country} altogether?"),
        ),
        _fact(
            "Geography/Area/land",
            SQUARE_KM,
            ("Its land makes up {answer}.", "Dry land takes {answer} of it."),
            ("What is the land area of {country}?", "How much of {country} is land?"),
        ),
        _fact(
            "Geography/Area/water",
            SQUARE_KM,
            ("Water makes up {answer}.", "Lakes and other waters take {answer}."),
            ("What is the water area of {country}?", "How much of {country} is water?"),
        ),
        _fact(
            "Geography/Irrigated land",
            SQUARE_KM,
            ("Farmers irrigate {answer}.", "The irrigated land amounts to {answer}."),
            ("How much land is irrigated in {country}?", "How large is the irrigated land of {country}?"),
        ),
        _fact(
            "Geography/Coastline",
            KM,
            ("The coastline is {answer} long.", "It has {answer} of coast."),
            ("How long is the coastline of {country}?", "What is the length of the coast of {country}?"),
        ),
        _fact(
            "Geography/Land boundaries/total",
            KM,
            ("Its land boundaries run for {answer}.", "The border on land measures {answer}."),
            ("How long are the land boundaries of {country}?", "What is the length of the land border of {country}?"),
        ),
        _fact(
            "Geography/Elevation/highest point",
            PLACE,
            ("The highest point is {answer}.", "Nothing rises higher than {answer}."),
            ("What is the highest point of {country}?", "Which place in {country} is the highest?"),
        ),
        _fact(
            "Geography/Elevation/lowest point",
            PLACE,
            ("The lowest point is {answer}.", "Nothing lies lower than {answer}."),
            ("What is the lowest point of {country}?", "Which place in {country} is the lowest?"),
        ),
        _fact(
            "Geography/Elevation/mean elevation",
            r"([\d.,]+ m)\b",
            ("The mean elevation is {answer}.", "On average the ground is {answer} above the sea."),
            ("What is the mean elevation of {country}?", "How high does {country} lie on average?"),
        ),
    ),
    "people": (
        _fact(
            "People and Society/Population/total",
            NUMBER,
            ("The population of {country} is {answer}.", "{answer} people live in {country}."),
            ("What is the population of {country}?", "How many people live in {country}?"),
        ),
        _fact(
            "People and Society/Population/male",
            NUMBER,
            ("There are {answer} men and boys.", "The male population is {answer}."),
            ("What is the male population of {country}?", "How many men and boys live in {country}?"),
        ),
        _fact(
            "People and Society/Population/female",
            NUMBER,
            ("There are {answer} women and girls.", "The female population is {answer}."),
            ("What is the female population of {country}?", "How many women and girls live in {country}?"),
        ),
        _fact(
            "People and Society/Median age/total",
            YEARS,
            ("The median age is {answer}.", "Half of the people are younger than {answer}."),
            ("What is the median age in {country}?", "Which age divides the people of {country} into halves?"),
        ),
        _fact(
            "People and Society/Median age/male",
            YEARS,
            ("The median age of men is {answer}.", "Among men the median age stands at {answer}."),
            ("What is the median age of men in {country}?",),
        ),
        _fact(
            "People and Society/Median age/female",
            YEARS,
            ("The median age of women is {answer}.", "Among women the median age stands at {answer}."),
            ("What is the median age of women in {country}?",),
        ),
        _fact(
            "People and Society/Life expectancy at birth/total population",
            YEARS,
            ("Life expectancy is {answer}.", "A newborn child may expect to live {answer}."),
            ("What is the life expectancy in {country}?", "How long may a child born in {country} expect to live?"),
        ),
        _fact(
            "People and Society/Life expectancy at birth/male",
            YEARS,
            ("Men have a life expectancy of {answer}.", "Men live {answer} on average."),
            ("What is the life expectancy of men in {country}?", "How long do men in {country} live?"),
        ),
        _fact(
            "People and Society/Life expectancy at birth/female",
            YEARS,
            ("Women have a life expectancy of {answer}.", "Women live {answer} on average."),
            ("What is the life expectancy of women in {country}?", "How long do women in {country} live?"),
        ),
        _fact(
            "People and Society/Urbanization/urban population",
            PERCENT,
            ("The urban population is {answer} of the whole.", "In cities live {answer} of the people."),
            (
                "What share of the people of {country} is urban?",
                "How much of the population of {country} is in cities?",
            ),
        ),
    ),
    "government": (
        _fact(
            "Government/Capital/name",
            PHRASE,
            ("The capital of {country} is {answer}.", "{country} is ruled from its capital, {answer}."),
            ("What is the capital of {country}?", "Which city is the capital of {country}?"),
        ),
        _fact(
            "Government/Country name/conventional long form",
            PHRASE,
            ("Its full name is {answer}.", "In official papers it is called {answer}."),
            ("What is the full name of {country}?", "How is {country} called officially?"),
        ),
        _fact(
            "Government/Government type",
            PHRASE,
            ("The form of government is {answer}.", "As a state it is a {answer}."),
            ("What is the form of government of {country}?", "What kind of state is {country}?"),
        ),
        _fact(
            "Government/Independence",
            DATE,
            ("It became independent on {answer}.", "The date of its independence is {answer}."),
            ("When did {country} become independent?", "What is the date of independence of {country}?"),
        ),
        _fact(
            "Government/National holiday",
            PHRASE,
            ("The national holiday is {answer}.", "Each year the nation celebrates {answer}."),
            ("What is the national holiday of {country}?", "What does {country} celebrate each year?"),
        ),
        _fact(
            "Government/Legislative branch/legislature name",
            PHRASE,
            ("The legislature is called {answer}.", "Laws are made by the {answer}."),
            ("What is the legislature of {country} called?", "Who makes the laws of {country}?"),
        ),
        _fact(
            "People and Society/Nationality/adjective",
            PHRASE,
            ("Its citizens are described as {answer}.", "The adjective of nationality is {answer}."),
            ("How are citizens of {country} described?", "What is the adjective of nationality for {country}?"),
        ),
        _fact(
            "Communications/Internet country code",
            r"(\.[a-z]{2,3})\b",
            ("Its internet addresses end in {answer}.", "The internet country code is {answer}."),
            ("What is the internet country code of {country}?", "In what do internet addresses of {country} end?"),
        ),
        _fact(
            "Economy/Exchange rates/Currency",
            r"([^()]*[^()\s])(?= \([A-Z]{3}\) per)",
            ("People pay in {answer}.", "The currency is counted in {answer}."),
            ("What is the currency of {country}?", "In what do people of {country} pay?"),
        ),
    ),
    "economy": (
        _fact(
            "Economy/Exports - partners",
            FIRST_PARTNER,
            ("Most exports of {country} go to {answer}.", "The best customer of {country} abroad is {answer}."),
            ("Where do most exports of {country} go?", "Who is the best customer of {country}?"),
        ),
        _fact(
            "Economy/Imports - partners",
            FIRST_PARTNER,
            ("Most imports come from {answer}.", "Its main supplier abroad is {answer}."),
            ("Where do most imports of {country} come from?", "Who is the main supplier of {country}?"),
        ),
        _fact(
            "Economy/Exports - commodities",
            FIRST_ITEM,
            ("The leading export is {answer}.", "Above all it sells {answer} abroad."),
            ("What is the leading export of {country}?", "What does {country} sell abroad above all?"),
        ),
        _fact(
            "Economy/Imports - commodities",
            FIRST_ITEM,
            ("The leading import is {answer}.", "Above all it buys {answer} abroad."),
            ("What is the leading import of {country}?", "What does {country} buy abroad above all?"),
        ),
        _fact(
            "Economy/Agricultural products",
            FIRST_ITEM,
            ("Among the products of its farms, {answer} come first.", "Its main farm product is {answer}."),
            ("What is the main farm product of {country}?", "What do farms in {country} mainly produce?"),
        ),
        _fact(
            "Economy/Industries",
            FIRST_ITEM,
            ("The main industry is {answer}.", "In industry, {answer} takes the first place."),
            ("What is the main industry of {country}?", "Which industry takes the first place in {country}?"),
        ),
        _fact(
            "Economy/GDP (official exchange rate)",
            DOLLARS,
            ("The gross domestic product is {answer}.", "In a year it produces goods and services worth {answer}."),
            ("What is the gross domestic product of {country}?", "How much does {country} produce in a year?"),
        ),
        _fact(
            "Communications/Internet users/percent of population",
            PERCENT,
            ("Internet users make up {answer} of the people.", "The internet is used by {answer} of the people."),
            ("What share of the people of {country} uses the internet?",),
        ),
        _fact(
            "Energy/Electricity access/electrification - total population",
            PERCENT,
            ("Electricity reaches {answer} of the people.", "Homes of {answer} of the people have electricity."),
            ("What share of the people of {country} has electricity?",),
        ),
        _fact(
            "Transportation/Airports",
            NUMBER,
            ("There are {answer} airports.", "Planes can land at {answer} airports."),
            ("How many airports are there in {country}?", "At how many airports can planes land in {country}?"),
        ),
    ),
}


def without_html(text: str) -> str:
    """A field's text without tags and character references; breaks and paragraphs become lines."""
    text = html.unescape(TAG.sub("", BREAK_TAG.sub("\n", text)))
    return "\n".join(line for line in (SPACES.sub(" ", line).strip() for line in text.splitlines()) if line)


def field_text(country: Mapping[str, Any], path: Iterable[str]) -> str:
    """The text of a nested field, tags stripped; an empty string if the country does not have it."""
    node: Any = country
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    text = node.get("text") if isinstance(node, Mapping) else None
    return without_html(text) if isinstance(text, str) else ""


def country_name(country: Mapping[str, Any]) -> str:
    """The short name, such as Algeria; the long one where there is none."""
    names = (
        field_text(country, ("Government", "Country name", f"conventional {form} form")) for form in ("short", "long")
    )
    return next((name for name in names if name and name != "none"), "")


def answers_of(country: Mapping[str, Any], facts: Iterable[Fact]) -> list[tuple[Fact, str]]:
    """The facts that the factbook tells of this country in a form short enough to be an answer."""
    found = []
    for fact in facts:
        match = re.match(fact.pattern, field_text(country, fact.path))
        answer = match.group(1) if match else ""
        if answer and answer != "none" and len(answer.split()) <= MAX_ANSWER_WORDS:
            found.append((fact, answer))
    return found


def paragraphs_of(code: str, country: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One paragraph for each theme with enough facts, with its questions, in SQuAD's form.

    code: names the country in the ids of the questions and in the key of the randomness.
    """
    name = country_name(country)
    paragraphs = []
    for theme, facts in THEMES.items():
        rng = random.Random(f"{code}/{theme}")
        known = answers_of(country, facts)
        if not name or len(known) < MIN_FACTS_PER_PARAGRAPH:
            continue
        stated = rng.sample(known, min(len(known), MAX_FACTS_PER_PARAGRAPH))
        context, places = f"{name}.", []
        for fact, answer in stated:
            before, after = rng.choice(fact.statements).replace("{country}", name).split("{answer}")
            places.append(len(context) + 1 + len(before))
            context += f" {before}{answer}{after}"
        asked = sorted(rng.sample(range(len(stated)), min(len(stated), QUESTIONS_PER_PARAGRAPH)))
        paragraphs.append(
            {
                "context": context,
                "qas": [
                    {
                        "id": f"{code}-{theme}-{number}",
                        "question": rng.choice(stated[number][0].questions).replace("{country}", name),
                        "answers": [{"text": stated[number][1], "answer_start": places[number]}],
                    }
                    for number in asked
                ],
            }
        )
    return paragraphs


def make_questions(countries: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(train, evaluation) in SQuAD v1.1 json, split by country: no country is in both.

    countries: the factbook's record of each country by its code. Those that any question can be asked about are put
    in the order of their codes' hashes: the first 49 are for evaluation, the next 200 for training.
    """
    articles = {
        code: {"title": country_name(country), "paragraphs": paragraphs}
        for code, country in sorted(countries.items())
        if (paragraphs := paragraphs_of(code, country))
    }
    by_hash = sorted(articles, key=lambda code: hashlib.blake2b(code.encode()).digest())
    train = by_hash[NUM_EVALUATION_COUNTRIES : NUM_EVALUATION_COUNTRIES + NUM_TRAIN_COUNTRIES]

    def as_squad(codes: Iterable[str]) -> dict[str, Any]:
        return {"version": NAME, "data": [articles[code] for code in sorted(codes)]}

    return as_squad(train), as_squad(by_hash[:NUM_EVALUATION_COUNTRIES])
