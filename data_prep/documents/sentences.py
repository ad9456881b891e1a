"""Text -> sentences (station 2): lines are paragraphs, and sentencex cuts each of them.

sentencex only inserts cuts: the pieces laid end to end are the line (a test holds this on arbitrary text), so no
character is lost but the white space around a sentence.
"""

import sentencex

LANGUAGE = "en"  # of the abbreviations that end no sentence; other languages with Latin script cut nearly as well


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order, without surrounding white space; none spans two lines, none is empty."""
    return [
        stripped
        for line in text.splitlines()
        if line.strip()
        for sentence in sentencex.segment(LANGUAGE, line)
        if (stripped := sentence.strip())
    ]
