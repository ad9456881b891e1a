"""Tokenized text, as WikiText has it -> running text (station 1, in the worker).

BERT's tokenizer cuts around every punctuation mark, so the spaces that are taken away here change no token; but without
them the end of a sentence is seen where it is. What the marks `@-@`, `@,@` and `@.@` joined is joined again.
"""

import re

JOINT = re.compile(r" @([-,.])@ ")
QUOTATION = re.compile(r'(?<!\S)" ([^"]*?) "(?!\S)')
CONTRACTION = re.compile(r"(?<=\w) (?='(?:s|t|re|ve|ll|d|m)(?!\w))", re.IGNORECASE)
BEFORE_CLOSING = re.compile(r" +(?=[,.;:!?%)\]}](?:[\s,.;:!?%)\]}\"']|$))")
AFTER_OPENING = re.compile(r"(?<=[(\[{$]) +")


def plain_text(text: str) -> str:
    """The lines of a document as they were before they were tokenized, as far as that is certain.

    Quotation marks are joined to what they enclose where a line has as many that open as close. An apostrophe after a
    plural, which may be a quotation mark, stays as it is.
    """
    return "\n".join(_line(line.strip()) for line in text.split("\n"))


def _line(line: str) -> str:
    line = JOINT.sub(r"\1", line)
    if line.count('"') % 2 == 0:
        line = QUOTATION.sub(r'"\1"', line)
    for spaces in (CONTRACTION, BEFORE_CLOSING, AFTER_OPENING):
        line = spaces.sub("", line)
    return line
