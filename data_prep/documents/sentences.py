"""Text -> sentences (station 2): lines are paragraphs, and sentencex cuts each of them.

sentencex only inserts cuts: the pieces laid end to end are the line (a test holds this on arbitrary text), so no
character is lost but the white space around a sentence. It has no options; four things that it does not know about
English are set right here, by looking at its cuts alone: marks that close a sentence belong to it; some abbreviations
("approx.", "Vol. 3", "3rd ed.") end none; nor do titles and initials behind an opening mark or a dash; and a sentence
in brackets of its own ends where they close.
"""

# ruff: noqa: RUF001, SIM905 (typographic marks are meant; lists of words read better as words)

import re

import sentencex

LANGUAGE = "en"  # of the abbreviations that end no sentence; other languages with Latin script cut nearly as well

OPENING = "([{\"'“‘„«¿¡—–-…*/"
DASH = re.compile(r"[—–/]")
# What closes a sentence: after its full stop without a space, or, where a mark can only close, with one.
REFERENCE = r"\[(?:\d{1,3}|[a-z]|(?:note|nb|n) \d{1,2})\]"
CLOSING = re.compile(rf"(?:[)\]}}”’»\"']|{REFERENCE})+(?=\s|\Z)|(?:[)\]}}”’»]|{REFERENCE})+(?=[A-Z])")
CLOSING_APART = re.compile(r"(?:[)\]}”»]|\[\d{1,3}\])+(?=\s|\Z)")
CLOSING_STARTS = frozenset(")]}”’»\"'[")
ENDS = (".", "!", "?")
CLOSING_QUOTES = "”’\"'"
GOES_ON = re.compile(r"\s*(?:[a-z,;:–—]|\(\d)")
NEXT_IS_NUMBER = re.compile(r"[(\[\"“]?(?:\d|[IVXLC]+\b(?!\.)|[a-z]?\d)")
NEXT_IS_NAME = re.compile(r"[(\[\"“‘']?[A-ZÀ-ÖØ-Þ]")

TITLES = frozenset(
    "Dr. Mr. Mrs. Ms. Prof. Rev. St. Mt. Ft. Gen. Col. Capt. Lt. Sgt. Maj. Cmdr. Adm. Gov. Sen. Rep. Hon. Pres. Fr. "
    "Mme. Mlle. Msgr. Sir. Sec. Supt. Insp. Ven. Amb. Atty. Drs. Messrs. Profs.".split()
)
BEFORE_A_NUMBER = frozenset(
    "Vol. Vols. vol. vols. No. Nos. no. nos. Fig. Figs. fig. figs. p. pp. Pp. Ch. Chs. ch. chap. Chap. Sec. Secs. "
    "sec. Pt. pt. Bk. bk. Eq. Eqs. eq. Art. art. Op. op. Par. par. Ex. Nr. nr. Ser. ser. Suppl. suppl. Ps. Cor. Rom. "
    "Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sept. Sep. Oct. Nov. Dec.".split()
)
WITHIN = frozenset("approx. Approx. cf. Cf. e.g. i.e. E.g. I.e. viz. esp. incl. ca. c. vs. resp. ibid. al.".split())
# These end a sentence only where the next word is one that likes to begin one.
SELDOM_LAST = frozenset(
    "ed. eds. Ed. Eds. trans. Trans. transl. rev. comp. illus. repr. abr. pseud. dept. Dept.".split()
)
STARTERS = frozenset(
    "The A An It Its He She They We You This That These Those There Here In On At By For From With As After Before "
    "When While If But And So His Her Their Our My What Who Why How One Some Many Most All Both Since During Although "
    "However Then Thus".split()
)


KNOWN = TITLES | BEFORE_A_NUMBER | WITHIN | SELDOM_LAST
KNOWN_ENDINGS = frozenset(word[-5:-1] for word in KNOWN)
TAIL = 24  # characters, in which the last word of a sentence is looked for


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order, without surrounding white space; none spans two lines, none is empty."""
    sentences: list[str] = []
    for line in text.splitlines():
        if line.strip():
            pieces = sentencex.segment(LANGUAGE, line)
            if len(pieces) > 1:
                pieces = _corrected(pieces)
            for piece in pieces:
                if stripped := piece.strip():
                    if stripped[0] == "(":
                        sentences += map(str.strip, _cut_after_brackets(stripped))
                    else:
                        sentences.append(stripped)
    return sentences


def _corrected(pieces: list[str]) -> list[str]:
    """The same text with better cuts. Most cuts need no second look, and must not take time."""
    found: list[str] = []
    sentence = pieces[0]
    for piece in pieces[1:]:
        ending = sentence[-6:-2]  # four letters before the full stop and a space
        if ending.isalpha() and ending not in KNOWN_ENDINGS and piece[0] not in CLOSING_STARTS:
            found.append(sentence)
            sentence = piece
            continue
        word = (sentence[-TAIL:].split() or (" ",))[-1]
        is_plain = word[-1] != "." or (word[:-1].isalnum() and word not in KNOWN)
        if is_plain and piece[0] not in CLOSING_STARTS:
            found.append(sentence)
            sentence = piece
            continue
        closing = (CLOSING_APART if sentence[-1].isspace() else CLOSING).match(piece)
        if closing:
            sentence += closing[0]
            piece = piece[closing.end() :]
        if not piece.strip() or (closing and GOES_ON.match(piece)) or (not closing and _ends_none(word, piece)):
            sentence += piece
        else:
            found.append(sentence)
            sentence = piece
    found.append(sentence)
    return found


def _ends_none(last_word: str, following: str) -> bool:
    """Whether the last word is an abbreviation that ends no sentence."""
    word = DASH.split(last_word)[-1].lstrip(OPENING)
    following = following.lstrip()
    if word in WITHIN:
        return True
    if word in BEFORE_A_NUMBER and NEXT_IS_NUMBER.match(following):
        return True
    if word in SELDOM_LAST:
        return following.split(None, 1)[0] not in STARTERS
    if word != last_word and (word in TITLES or (len(word) == 2 and word[0].isupper() and word[1] == ".")):
        # Where the word stands alone, sentencex has looked at it.
        return NEXT_IS_NAME.match(following) is not None and following.split(None, 1)[0] not in STARTERS
    return False


def _cut_after_brackets(sentence: str) -> tuple[str, ...]:
    """(A sentence in brackets.) And the next, which sentencex keeps together."""
    end = sentence.find(")")
    inside, following = sentence[1:end].rstrip(CLOSING_QUOTES), sentence[end + 1 :]
    words = inside[-TAIL:].split()
    is_whole = inside[-1:] in ENDS and NEXT_IS_NAME.match(inside) is not None and "(" not in inside and len(words) > 1
    if end < 0 or not is_whole or not following[:1].isspace() or not NEXT_IS_NAME.match(following.lstrip()):
        return (sentence,)
    if words[-1] in KNOWN or "." in words[-1][:-1] or len(words[-1]) < 3:  # (Mr. Smith of the U.S.) Grant
        return (sentence,)
    return (sentence[: end + 1], following)
