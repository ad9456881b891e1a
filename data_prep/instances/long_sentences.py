"""Sentences that are longer than an instance -> their words, so that all of their text is used (station 3).

Speech transcripts and tokenized corpora have no sentence marks; a document may be one "sentence". Gathering takes a
sentence whole and then trims the pair, so all but an instance's worth of it would be lost. Its words, each taken for a
sentence, fill an instance as far as whole words do, and A and B meet where a word ends.
"""

from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data_prep.instances.sentence_tasks import TokenizedDocument


def cut_long_sentences(
    documents: Sequence[TokenizedDocument],
    token_store: np.ndarray,
    is_continuation: np.ndarray,
    *,
    max_sentence_tokens: int,
) -> list[TokenizedDocument]:
    """The same documents, with every sentence longer than max_sentence_tokens cut at each of its words.

    A single word that is longer is cut at each of its tokens. A document whose sentences all fit stays as it is.

    token_store: [tokens of the group] ids. is_continuation: [entries] bool, whether an entry continues a word.
    """
    return [_cut(document, token_store, is_continuation, max_sentence_tokens) for document in documents]


def _cut(
    document: TokenizedDocument, token_store: np.ndarray, is_continuation: np.ndarray, max_sentence_tokens: int
) -> TokenizedDocument:
    sentences = offsets = np.array(document.sentence_offsets, np.int64)
    if np.diff(offsets).max() <= max_sentence_tokens:
        return document
    start, stop = document.sentence_offsets[0], document.sentence_offsets[-1]
    begins_word = ~is_continuation[token_store[start:stop]]
    for places in (start + np.flatnonzero(begins_word), np.arange(start, stop)):
        offsets = _with_cuts(offsets, places, max_sentence_tokens)
    packed = array("q")  # a list would take five times the memory, and a document may be the whole corpus
    packed.frombytes(offsets.tobytes())
    was_too_long = np.diff(sentences) > max_sentence_tokens
    is_piece = was_too_long[np.searchsorted(sentences, offsets[:-1], side="right") - 1]
    return replace(document, sentence_offsets=packed, is_piece=is_piece.astype(np.uint8).tobytes())


def _with_cuts(offsets: np.ndarray, places: np.ndarray, max_sentence_tokens: int) -> np.ndarray:
    """The offsets, and those of the places that are inside of a sentence that is too long."""
    is_too_long = np.diff(offsets) > max_sentence_tokens
    if not is_too_long.any():
        return offsets
    return np.union1d(offsets, places[is_too_long[np.searchsorted(offsets, places, side="right") - 1]])
