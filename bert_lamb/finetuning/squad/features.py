"""Second stop of the SQuAD path: examples -> features, the windows of tokens that BERT reads.

A context longer than the model is read in overlapping windows, as in Google's run_squad.py
(github.com/google-research/bert, convert_examples_to_features). Unlike there, positions in the text come from the
tokenizer's character offsets, so an answer maps to tokens and back without re-tokenizing.

Letters: Q tokens of the question, W tokens of the window, T = Q + W + 3 tokens of a feature.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert_lamb.checkpoint.folder.word_pieces import Encoded, WordPieces
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.examples import Answer, Example
from bert_lamb.finetuning.squad.graphemes import whole_graphemes
from bert_lamb.progress import Progress

NUM_SPECIAL_TOKENS = 3  # [CLS] question [SEP] window [SEP]
NO_ANSWER = (0, 0)  # the position of [CLS], as start and end
EXAMPLES_PER_BATCH = 256  # whose texts are tokenized together


@dataclass(frozen=True, eq=False)
class Feature:
    """One window: `[CLS] question [SEP] window [SEP]`."""

    example_index: int
    input_ids: list[int]  # T
    window_start: int  # where the window begins in input_ids: Q + 2
    offsets: NDArray[np.int64]  # [W, 2]; the characters of each window token in the context, end exclusive; whole
    # graphemes, with the accents, joiners and the like that the tokenizer drops
    is_max_context: NDArray[np.bool_]  # [W]; whether no other window of the example shows the token with more context

    @property
    def second_start(self) -> int:
        """As finetuning/tokens.py calls it: the context is the second text."""
        return self.window_start


@dataclass(frozen=True)
class Window:
    """A range of the context's tokens."""

    start: int
    num_tokens: int


class _Context:
    """The tokens of one context, cut into windows once for every length of window."""

    def __init__(self, text: str, encoded: Encoded) -> None:
        self.ids = encoded.ids
        self.offsets = whole_graphemes(text, encoded.offsets)
        self._windows: dict[int, list[tuple[slice, NDArray[np.bool_]]]] = {}

    def windows(self, max_window_tokens: int, doc_stride: int) -> list[tuple[slice, NDArray[np.bool_]]]:
        """The tokens of each window, and which of them no other window shows with more context."""
        if max_window_tokens not in self._windows:
            windows = make_windows(len(self.ids), max_window_tokens, doc_stride)
            slices = [slice(window.start, window.start + window.num_tokens) for window in windows]
            self._windows[max_window_tokens] = list(zip(slices, mark_max_context(windows), strict=True))
        return self._windows[max_window_tokens]


def make_features(
    examples: Sequence[Example],
    tokenizer: WordPieces,
    *,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
    name: str = "questions",
    is_shown: bool = True,
) -> list[Feature]:
    """The features of all examples, in order; each context and each question is tokenized once.

    max_seq_length: most tokens of a feature. doc_stride: tokens from one window's start to the next's.
    max_query_length: most tokens of a question, the rest is cut. name, is_shown: of the progress bar.
    Raises UserError for a length that leaves no room for windows and for a context or a question without tokens.
    """
    if max_query_length + NUM_SPECIAL_TOKENS >= max_seq_length:
        raise UserError(
            found=f"max_seq_length={max_seq_length} with max_query_length={max_query_length}",
            expected=f"more than max_query_length + {NUM_SPECIAL_TOKENS}",
            fix="set max_seq_length",
        )
    contexts: dict[str, _Context] = {}
    features = []
    with Progress(f"{name}: features", total=len(examples), unit="questions", is_shown=is_shown) as progress:
        for first in range(0, len(examples), EXAMPLES_PER_BATCH):
            batch = examples[first : first + EXAMPLES_PER_BATCH]
            new = list(dict.fromkeys(example.context for example in batch if example.context not in contexts))
            contexts |= {
                text: _Context(text, encoded) for text, encoded in zip(new, tokenizer.encode(new), strict=True)
            }
            questions = tokenizer.encode([example.question for example in batch])
            for i, (example, question) in enumerate(zip(batch, questions, strict=True), start=first):
                context = contexts[example.context]
                _check_tokens(example, question, context.ids)
                head = [tokenizer.cls_id, *question.ids[:max_query_length], tokenizer.sep_id]
                for window, is_max_context in context.windows(max_seq_length - len(head) - 1, doc_stride):
                    features.append(
                        Feature(
                            example_index=i,
                            input_ids=[*head, *context.ids[window], tokenizer.sep_id],
                            window_start=len(head),
                            offsets=context.offsets[window],
                            is_max_context=is_max_context,
                        )
                    )
            progress.update(len(batch))
    return features


def _check_tokens(example: Example, question: Encoded, context_ids: list[int]) -> None:
    """Refuse texts of which the tokenizer leaves nothing: white space, control characters."""
    for what, ids in (("context", context_ids), ("text", question.ids)):
        if not ids:
            raise UserError(
                found=f"question {example.id!r} whose {what} has no tokens", expected="text", fix="remove the question"
            )


def make_windows(num_tokens: int, max_window_tokens: int, doc_stride: int) -> list[Window]:
    """Windows that cover `num_tokens` tokens, each at most `max_window_tokens` long; the last ends with the context."""
    windows = []
    start = 0
    while True:
        length = min(num_tokens - start, max_window_tokens)
        windows.append(Window(start, length))
        if start + length == num_tokens:
            return windows
        start += min(length, doc_stride)


def mark_max_context(windows: Sequence[Window]) -> list[NDArray[np.bool_]]:
    """For every token of every window: whether it is this window that shows the token with most context.

    Context is the number of tokens on the poorer side, plus a hundredth of the window's length to decide between
    equals; the first window wins what is still equal (run_squad.py, _check_is_max_context). Time: each token of each
    window is looked at once.
    """
    num_tokens = windows[-1].start + windows[-1].num_tokens
    most = np.full(num_tokens, -1.0)  # context of each token in the best window so far
    best = np.zeros(num_tokens, dtype=np.int64)  # which window that is
    for i, window in enumerate(windows):
        tokens = slice(window.start, window.start + window.num_tokens)
        num_left = np.arange(window.num_tokens)
        context = np.minimum(num_left, num_left[::-1]) + 0.01 * window.num_tokens
        is_better = context > most[tokens]
        most[tokens][is_better] = context[is_better]
        best[tokens][is_better] = i
    return [best[window.start : window.start + window.num_tokens] == i for i, window in enumerate(windows)]


def answer_positions(feature: Feature, answer: Answer) -> tuple[int, int]:
    """First and last token of `answer` as positions in `feature.input_ids`; NO_ANSWER if it is not wholly inside."""
    is_kept = [_gives_tokens(character) for character in answer.text]
    if not any(is_kept):
        return NO_ANSWER
    start = answer.start + is_kept.index(True)
    end = answer.start + len(answer.text) - is_kept[::-1].index(True)
    token_starts, token_ends = feature.offsets.T
    if token_starts[0] > start or token_ends[-1] < end:
        return NO_ANSWER
    inside = np.flatnonzero((token_ends > start) & (token_starts < end))
    if len(inside) == 0:
        return NO_ANSWER
    return feature.window_start + int(inside[0]), feature.window_start + int(inside[-1])


def _gives_tokens(character: str) -> bool:
    """Whether BERT's normalizer keeps a character: no white space, no control, format or unassigned character."""
    return not (character.isspace() or character == "\ufffd" or unicodedata.category(character).startswith("C"))
