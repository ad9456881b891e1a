"""Second stop of the SQuAD path: examples -> features, the windows of tokens that BERT reads.

A context longer than the model is read in overlapping windows, as in Google's run_squad.py
(github.com/google-research/bert, convert_examples_to_features). Unlike there, positions in the text come from the
tokenizer's character offsets, so an answer maps to tokens and back without re-tokenising.

Letters: Q tokens of the question, W tokens of the window, T = Q + W + 3 tokens of a feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bert_lamb.errors import UserError
from bert_lamb.squad.examples import Answer, Example

NUM_SPECIAL_TOKENS = 3  # [CLS] question [SEP] window [SEP]
NO_ANSWER = (0, 0)  # the position of [CLS], as start and end


@dataclass(frozen=True)
class Feature:
    """One window: `[CLS] question [SEP] window [SEP]`."""

    example_index: int
    input_ids: list[int]  # T
    window_start: int  # where the window begins in input_ids: Q + 2
    offsets: list[tuple[int, int]]  # W; the characters of each window token in the context, end exclusive
    is_max_context: list[bool]  # W; whether no other window of the example shows the token with more context


@dataclass(frozen=True)
class Window:
    """A stretch of the context's tokens."""

    start: int
    num_tokens: int


def make_features(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_seq_length: int,
    doc_stride: int,
    max_query_length: int,
) -> list[Feature]:
    """The features of all examples, in order; each context and each question is tokenised once.

    max_seq_length: most tokens of a feature. doc_stride: tokens from one window's start to the next's.
    max_query_length: most tokens of a question, the rest is cut. Raises UserError for a tokenizer without character
    offsets, a length that leaves no room for windows and a context without tokens.
    """
    _check_tokenizer(tokenizer)
    if max_query_length + NUM_SPECIAL_TOKENS >= max_seq_length:
        raise UserError(
            found=f"max_seq_length={max_seq_length} with max_query_length={max_query_length}",
            expected=f"more than max_query_length + {NUM_SPECIAL_TOKENS}",
            fix="set max_seq_length",
        )
    contexts = _tokenise([example.context for example in examples], tokenizer)
    questions = _tokenise([example.question for example in examples], tokenizer)
    features = []
    for example_index, example in enumerate(examples):
        question_ids = questions[example.question][0][:max_query_length]
        context_ids, offsets = contexts[example.context]
        if not context_ids:
            raise UserError(
                found=f"question {example.id!r} whose context has no tokens",
                expected="text",
                fix="remove the question",
            )
        max_window_tokens = max_seq_length - len(question_ids) - NUM_SPECIAL_TOKENS
        windows = make_windows(len(context_ids), max_window_tokens, doc_stride)
        for window, is_max_context in zip(windows, mark_max_context(windows), strict=True):
            stretch = slice(window.start, window.start + window.num_tokens)
            head = [tokenizer.cls_token_id, *question_ids, tokenizer.sep_token_id]
            features.append(
                Feature(
                    example_index=example_index,
                    input_ids=[*head, *context_ids[stretch], tokenizer.sep_token_id],
                    window_start=len(head),
                    offsets=offsets[stretch],
                    is_max_context=is_max_context,
                )
            )
    return features


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


def mark_max_context(windows: Sequence[Window]) -> list[list[bool]]:
    """For every token of every window: whether it is this window that shows the token with most context.

    Context is the number of tokens on the poorer side, plus a hundredth of the window's length to decide between
    equals; the first window wins what is still equal (run_squad.py, _check_is_max_context).
    """
    if len(windows) == 1:
        return [[True] * windows[0].num_tokens]

    def context(position: int, window: Window) -> float:
        num_left = position - window.start
        num_right = window.num_tokens - 1 - num_left
        return min(num_left, num_right) + 0.01 * window.num_tokens

    marks = [[False] * window.num_tokens for window in windows]
    for position in range(windows[-1].start + windows[-1].num_tokens):
        holders = [i for i, window in enumerate(windows) if 0 <= position - window.start < window.num_tokens]
        best = max(holders, key=lambda i: context(position, windows[i]))
        marks[best][position - windows[best].start] = True
    return marks


def answer_positions(feature: Feature, answer: Answer) -> tuple[int, int]:
    """First and last token of `answer` as positions in `feature.input_ids`; NO_ANSWER if it is not wholly inside."""
    start = answer.start + len(answer.text) - len(answer.text.lstrip())
    end = answer.start + len(answer.text.rstrip())
    if feature.offsets[0][0] > start or feature.offsets[-1][1] < end:
        return NO_ANSWER
    inside = [
        i for i, (token_start, token_end) in enumerate(feature.offsets) if token_end > start and token_start < end
    ]
    if not inside:
        return NO_ANSWER
    return feature.window_start + inside[0], feature.window_start + inside[-1]


def pad(features: Sequence[Feature], pad_token_id: int) -> dict[str, Tensor]:
    """The model's inputs, each int64 [number of features, longest T]; padding is not attended to."""
    num_rows, num_columns = len(features), max(len(feature.input_ids) for feature in features)
    input_ids = torch.full((num_rows, num_columns), pad_token_id)
    attention_mask = torch.zeros((num_rows, num_columns), dtype=torch.int64)
    token_type_ids = torch.zeros((num_rows, num_columns), dtype=torch.int64)
    for row, feature in enumerate(features):
        num_tokens = len(feature.input_ids)
        input_ids[row, :num_tokens] = torch.tensor(feature.input_ids)
        attention_mask[row, :num_tokens] = 1
        token_type_ids[row, feature.window_start : num_tokens] = 1  # the window and its [SEP]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise UserError(
            found=f"the slow tokenizer {type(tokenizer).__name__}",
            expected="a fast tokenizer, which tells the characters of each token",
            fix="put a tokenizer.json or a vocab.txt into the model's folder",
        )
    missing = [name for name in ("cls_token_id", "sep_token_id", "pad_token_id") if getattr(tokenizer, name) is None]
    if missing:
        raise UserError(
            found=f"a tokenizer without {', '.join(missing)}",
            expected="BERT's special tokens",
            fix="mend the tokenizer",
        )


def _tokenise(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> dict[str, tuple[list[int], list[tuple[int, int]]]]:
    """Token ids and character offsets of each distinct text, without special tokens and uncut."""
    distinct = list(dict.fromkeys(texts))
    encoded = tokenizer(
        distinct,
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return dict(zip(distinct, zip(encoded["input_ids"], encoded["offset_mapping"], strict=True), strict=True))
