"""Which lines of extracted text are headings, or lone entries of lists and tables, and no sentences (station 1).

wikiextractor writes a heading as a short line that ends in a full stop, so it looks like a sentence. A line is
taken for one only where no word after the first looks like a finite verb (one listed below, or a word in -ed or -s): a
heading that stays costs little, a sentence that goes is lost. The verbs are English; of texts in other languages only
lines of one word are taken for headings.
"""

import re
from collections.abc import Sequence

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
    "arose ate awoke bade beat became befell began beheld bent bet bit bled blew bore bought bound bred broke brought "
    "built burned burnt burst came cast caught chose clung cost creeped crept cut dealt dove drank dreamt drew drove "
    "dug dwelt fed fell felt fled flew flung forbade foresaw foretold forewent forgave forgot forsook fought found "
    "froze gave got grew ground heard held hid hit hung hurt inlaid interwove kept kneeled knelt knew laid lay leant "
    "leapt learnt led left lent let lit lost made meant met mislaid misled misread mistook misunderstood outgrew "
    "overcame overdid overheard overlaid overran overrode oversaw overslept overspent overthrew overtook paid partook "
    "preset proved put quit ran rang read rebuilt redid remade repaid reran reset resold retold retook rewrote rode "
    "rose said sang sank sat saw sent set sewed shed shone shook shot shrank shut slept slew slid slit slung slunk "
    "smelt smote sold sought sowed spat sped spelt spent spilt split spoilt spoke sprang spread spun stank stole "
    "stood strode strove struck strung stuck stung swam swelled swept swore swung taught telecast thought threw "
    "thrust told took tore trod understood undertook underwent unwound upheld wed went wept withdrew withheld "
    "withstood woke won wore wound wove wrote wrought wrung"
)
PRESENT = (
    "accept achieve acquire adapt add admit adopt affect agree allow appear appears apply argue arise arrive ask "
    "assert assume attend avoid bear become becomes begin begins believe belong belongs breed bring brings broadcast "
    "build burn buy carry catch celebrate choose collect combine come comes compete complete compose comprise "
    "comprises conduct connect consider consist consists construct consume contain contains continue contribute "
    "convert cover covers create dance decide define deliver denote denotes depend derive describe describes destroy "
    "determine develop die differ differs discuss divide eat elect emerge employ enable encourage enjoy ensure enter "
    "establish evolve exist exists expand expect explain express extend face fail fall feature features feed feel "
    "fight fill find finish fit flow flows fly follow follows form forms frequent gain gather generate get give gives "
    "go goes govern grow grows happen hatch hear help hide hold holds hope hunt identify ignore imply impose improve "
    "include includes increase indicate indicates influence inhabit inspire intend introduce invite involve involves "
    "join joins keep keeps kill know knows lack lacks land lead leads learn leave let lie lies like listen live lives "
    "look lose love maintain make makes manage marry mate mean means measure meet melt migrate move moves need needs "
    "nest observe obtain occupy occur occurs offer offers open opens operate operates oppose organize originate own "
    "owns pass pay perform permit persist play plays possess prefer prepare present preserve prevent proceed produce "
    "produces promote protect prove provide provides publish publishes pull push put raise range ranges rank reach "
    "reaches react realize recall receive receives recognize reduce refer refers reflect regard reject relate release "
    "rely remain remains remove render replace represent reproduce require requires resemble reside rest restrict "
    "result retain return reveal rise roam rule run runs sail say search see seek seem select sell send separate "
    "serve serves share shed show shows sing sink sit sleep speak specialize spend split spread stand stands start "
    "starts stay stop store strike struggle study submit succeed suffer suggest supply support suppose surround "
    "survive swim take takes talk teach tell tells tend tends think throw train transfer travel treat trust try turn "
    "understand use uses varies vary visit vote wait walk want wants watch wear win wish wonder work works worship "
    "write writes"
)
# In headings of three words and fewer they are nouns, and so is "fall" in "the fall of".
NOUNS_TOO = (
    "bore bound broadcast cast cost cover dance dove face fall feature fight find fit form ground help hope hunt "
    "increase influence land lead like look love mate measure nest pass pay present preset range rank read release "
    "reset rest result return rise rule run sail search set share shed show split stand start store strike struggle "
    "study supply support talk telecast train transfer travel trust turn use visit vote wait walk watch win wish "
    "wonder work works worship wound"
)
BEFORE_NOUNS = frozenset({"the", "a", "an", "of", "in", "on", "for", "by", "its", "his", "her", "their"})
NOUNS = frozenset(NOUNS_TOO.split())
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
    """Whether a short line holds no word that looks like a finite verb of English."""
    if len(body.split()) > max_words or not (body[0].isupper() or body[0].isdecimal()) or ENDS_WITHIN.search(body):
        return False
    words = WORD.findall(body)
    if not words:
        return True
    if words[0].lower() in OPENERS and len(words) > 1:
        return False
    return not any(_can_be_verb(words, number) for number in range(len(words)))


def _can_be_verb(words: Sequence[str], number: int) -> bool:
    word, num_words = words[number], len(words)
    if number == 0 or not word.islower():  # of a heading's words, those in lower case; names are none
        return False
    if word in VERBS:
        is_within_noun_phrase = number < num_words - 1 and words[number - 1].lower() in BEFORE_NOUNS
        return word not in NOUNS or (num_words > 3 and not is_within_noun_phrase)
    if word.endswith("ed") and len(word) > 3 and not word.endswith("eed"):
        return True
    # "s" may end a verb, or a noun: in the middle of three words and more, a verb for all we know.
    return num_words > 2 and number < num_words - 1 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
