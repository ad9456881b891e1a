"""Which tokens of a group's documents are in none of its instances, and why (station 3).

Pairs are trimmed to the length of an instance, as in the original code, and text that has no second segment makes no
pair. Here that text is counted, exactly and by reason, so that no preparation loses much of its corpus in silence.

Ranges are [M, 3] int64: the first token, the one after the last, and the reason as an index into LEFT_OUT_REASONS. They
are in order, do not overlap, and none crosses the end of a document. Positions count from the group's first token.
"""

from collections.abc import Sequence

import numpy as np

from bert_lamb.shards.manifest import LAST_SENTENCE, LEFT_OUT_REASONS, SENTENCE_ORDER, SINGLE_SENTENCE, TRIMMED
from data_prep.instances.sentence_tasks import TokenizedDocument

CODES = {reason: code for code, reason in enumerate(LEFT_OUT_REASONS)}


def left_out_ranges(instances: np.ndarray, documents: Sequence[TokenizedDocument], *, sentence_task: str) -> np.ndarray:
    """The ranges of tokens in no instance, be it as the first or the second segment of any document's pair.

    instances: [N, 6] int64, the fields of Instance, all that the documents gave.
    """
    starts = np.array([document.sentence_offsets[0] for document in documents])
    stops = np.array([document.sentence_offsets[-1] for document in documents])
    last_sentences = np.array([document.sentence_offsets[-2] for document in documents])
    # How far each document is used by its own pairs: by A, and by B where it is the same document's.
    start_a, stop_a, start_b, stop_b, document, label = instances.T
    is_foreign = (label == 1) & (sentence_task != SENTENCE_ORDER)
    reach = np.full(len(documents), -1)
    np.maximum.at(reach, document, np.maximum(stop_a, np.where(is_foreign, 0, stop_b)))
    is_alone = reach == -1
    is_last_alone = ~is_alone & (reach <= last_sentences)

    gaps = _gaps(np.concatenate([start_a, start_b]), np.concatenate([stop_a, stop_b]), stops[-1])
    ranges = _cut_at(gaps, np.concatenate([starts, last_sentences[is_last_alone]]))
    of_document = np.searchsorted(starts, ranges[:, 0], side="right") - 1
    is_in_last = is_last_alone[of_document] & (ranges[:, 0] >= last_sentences[of_document])
    reasons = np.select(
        [is_alone[of_document], is_in_last],
        [CODES[SINGLE_SENTENCE], CODES[LAST_SENTENCE]],
        CODES[TRIMMED],
    )
    return np.column_stack([ranges, reasons]).astype(np.int64).reshape(-1, 3)


def count_left_out(ranges: np.ndarray) -> dict[str, int]:
    """Reason -> tokens, for every reason."""
    totals = np.bincount(ranges[:, 2], ranges[:, 1] - ranges[:, 0], minlength=len(LEFT_OUT_REASONS))
    return {reason: int(total) for reason, total in zip(LEFT_OUT_REASONS, totals, strict=True)}


def in_both(ranges: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What two lists of ranges have in common, with the reasons of the first; both in the same positions."""
    pieces = _cut_at(ranges, others[:, :2].reshape(-1))
    place = np.searchsorted(others[:, 0], pieces[:, 0], side="right") - 1
    is_shared = (place >= 0) & (pieces[:, 0] < np.append(others[:, 1], 0)[place])
    return pieces[is_shared]


def _gaps(starts: np.ndarray, stops: np.ndarray, num_tokens: int) -> np.ndarray:
    """[M, 2] what the spans leave of 0..num_tokens; they may overlap, and be empty."""
    order = np.argsort(starts, kind="stable")
    reached = np.concatenate([[0], np.maximum.accumulate(stops[order])])  # before each span, and at the end
    following = np.append(starts[order], num_tokens)
    is_gap = following > reached
    return np.column_stack([reached[is_gap], following[is_gap]])


def _cut_at(ranges: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The same ranges, cut in two wherever a place is inside of one; what else they hold is repeated."""
    if not len(ranges):
        return ranges
    places = np.unique(places)
    owner = np.searchsorted(ranges[:, 0], places, side="right") - 1
    is_inside = (owner >= 0) & (places > ranges[owner, 0]) & (places < ranges[owner, 1])
    places, owner = places[is_inside], owner[is_inside]
    pieces = np.concatenate([ranges, ranges[owner]])
    pieces[len(ranges) :, 0] = places
    pieces = pieces[np.argsort(pieces[:, 0], kind="stable")]
    pieces[:-1, 1] = np.minimum(pieces[:-1, 1], pieces[1:, 0])
    return pieces
