"""Which lines of extracted text are headings, or lone entries of lists and tables, and no sentences (station 1).

wikiextractor writes a heading as a short line that ends in a full stop, so it looks like a sentence. A line is
taken for one only where nothing in it can be a finite verb: a heading that stays costs little, a sentence that goes is
lost. The verbs are English; of texts in other languages only lines of one word are taken for headings.
"""

import re

MAX_WORDS = 8
MAX_CHARACTERS = 100
# Sections without running text of their own, which may also end an article.
LAST_HEADINGS = frozenset(
    {
        "references", "external links", "see also", "notes", "further reading", "bibliography", "sources", "footnotes",
        "citations", "external link", "links", "notes and references", "references and notes", "literature", "gallery",
        "discography", "filmography", "publications", "works", "books", "selected bibliography", "selected works",
        "track listing", "personnel", "credits", "awards", "results", "external references", "related links",
    }
)  # fmt: skip
OPENERS = frozenset(
    {
        "it", "he", "she", "they", "we", "you", "i", "this", "these", "those", "there", "here", "who", "his", "her",
        "its", "their", "then", "thus", "however", "also", "both", "some", "many", "most", "all", "none", "each",
        "another", "such", "if", "when", "while", "because", "although", "but", "so", "and", "or", "yes", "no", "see",
        "let", "please", "note", "not", "born",
    }
)  # fmt: skip
AUXILIARIES = (
    "is are was were be been being am has have had do does did can could will would shall should may might must "
    "isn't aren't wasn't weren't hasn't haven't hadn't don't doesn't didn't can't couldn't won't wouldn't"
)
IRREGULAR = (
    "became began broke brought built bought came chose cut drew drove fell felt fought found gave got grew held hit "
    "kept knew laid lay led left lent let lost made meant met paid put ran read rose said sat saw sent set shot sold "
    "spent spoke stood struck swam taught thought threw told took understood went withdrew won wore wrote"
)
PRESENT = (
    "appear appears become becomes begin begins belong belongs bring brings broadcast come comes comprise comprises "
    "consist consists contain contains cover covers denote denotes describe describes differ differs exist exists "
    "feature features flow flows follow follows form forms frequent give gives go goes grow grows hold holds include "
    "includes indicate indicates involve involves join joins keep keeps know knows lack lacks lead leads lie lies live "
    "lives make makes mean means move moves need needs occur occurs offer offers open opens operate operates own owns "
    "play plays produce produces provide provides publish publishes range ranges reach reaches receive receives refer "
    "refers remain remains require requires run runs serve serves show shows stand stands start starts take takes "
    "tell tells tend tends use uses vary varies want wants work works write writes"
)
NOUNS_TOO = frozenset("broadcast cover feature form lead range read run set show stand start use work works".split())  # noqa: SIM905
VERBS = frozenset(f"{AUXILIARIES} {IRREGULAR} {PRESENT}".split())
COMMON_WORDS = frozenset({"the", "of", "and", "to", "was", "by", "for", "with", "at", "an", "from"})
WORD = re.compile(r"[^\W\d_][\w'’\-]*")  # noqa: RUF001
ENDS_WITHIN = re.compile(r"[.!?…]\s+\S|[;:]\s|\.\.|[.!?]$")


def is_english(text: str) -> bool:
    """Whether a text has as many of the commonest words as English has, and other languages have not."""
    words = text[:1000].lower().split()
    return sum(map(COMMON_WORDS.__contains__, words)) * 10 >= len(words)


def is_heading(line: str, *, is_last: bool, has_english_verbs: bool) -> bool:
    """Whether a line that ends in a full stop is a heading. The last line of a text is one only if it is well known."""
    body = line.strip()[:-1].rstrip()
    if not line.rstrip().endswith(".") or not body:
        return False
    if body.lower() in LAST_HEADINGS:
        return True
    return not is_last and is_without_verb(body, max_words=MAX_WORDS if has_english_verbs else 1)


def is_without_verb(body: str, *, max_words: int = MAX_WORDS) -> bool:
    """Whether a short line holds nothing that can be a finite verb of English."""
    if len(body.split()) > max_words or not (body[0].isupper() or body[0].isdecimal()) or ENDS_WITHIN.search(body):
        return False
    words = WORD.findall(body)
    if not words:
        return True
    if words[0].lower() in OPENERS and len(words) > 1:
        return False
    return not any(_can_be_verb(word, number, len(words)) for number, word in enumerate(words))


def _can_be_verb(word: str, number: int, num_words: int) -> bool:
    if number == 0 or not word.islower():  # of a heading's words, those in lower case; names are none
        return False
    if word in VERBS:
        return num_words > 3 or word not in NOUNS_TOO
    if word.endswith("ed") and len(word) > 3 and not word.endswith("eed"):
        return True
    # "s" may end a verb, or a noun: in the middle of four words and more, a verb for all we know.
    return num_words > 4 and number < num_words - 1 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
