"""Where a text may be cut: between graphemes, what a reader takes for one character (Unicode Standard Annex 29)."""

from collections.abc import Sequence

import numpy as np
import regex
from numpy.typing import NDArray

# Every grapheme of several characters has one that is none of these; nearly all English text can do without the search.
JOINING = regex.compile(r"[^\p{GCB=Other}\p{GCB=Control}\p{GCB=LF}]")
GRAPHEME = regex.compile(r"\X")


def whole_graphemes(text: str, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The ranges of characters `offsets`, each widened to the graphemes that it cuts through.

    An uncased tokenizer drops the accent of "e\\u0301", so the range of its token ends before it; the same goes for
    joiners and variation selectors of emoji. Ends are exclusive; the ranges are not empty. Returns [ranges, 2].
    """
    ranges = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    if JOINING.search(text) is None:
        return ranges
    first, last = np.arange(len(text)), np.arange(1, len(text) + 1)
    for match in GRAPHEME.finditer(text):
        start, end = match.span()
        if end - start > 1:
            first[start:end], last[start:end] = start, end
    return np.stack([first[ranges[:, 0]], last[ranges[:, 1] - 1]], axis=1)
