"""Sentences -> WordPiece ids, once for all lengths (station 2).

The ids are those of the `tokenizers` library, with the pipeline of transformers' BertTokenizer (tests compare both on
arbitrary text) and one wanted difference: the five special tokens are not looked for in the text, so an article about
BERT that says "[SEP]" gives brackets and letters.

The library spends most of its time on words it has seen before. So each distinct piece of a block is looked at once,
and two exact caches stand in front of the library:

- chunk -> ids. A chunk is what stands between two spaces ("house," is one). BERT's normalizer works character by
  character, and what it reorders never crosses a space; its pre-tokenizer always cuts there. So the ids of a sentence
  are the ids of its chunks, for every text.
- word -> ids, behind it, for chunks of printable ASCII: lower-cased, cut around punctuation, each word a lookup in the
  vocabulary or a call of the library's WordPiece model. Every other new chunk goes through the whole library.
"""

import string
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_lamb.shards.schema import token_dtype
from data_prep.documents.vocabulary_file import SEP, UNK, read_entries

MAX_WORD_CHARACTERS = 100  # a longer word is one [UNK], as in Google's tokenization.py
MAX_CACHED_CHUNKS = 1 << 18  # 33 MB; what comes later is rarer and is not remembered
MAX_CACHED_WORDS = 1 << 17  # 19 MB
MAX_CACHED_CHARACTERS = 64  # of a chunk: nobody writes a longer one twice
END = "\n"  # marks where a sentence, or a chunk, ends; neither holds it


def bert_normalizer(*, is_lowercase: bool) -> BertNormalizer:
    """Google's BasicTokenizer up to the splitting: control characters out, CJK apart, lower case without accents."""
    return BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=is_lowercase, lowercase=is_lowercase
    )


def bert_tokenizer(vocabulary: dict[str, int], *, is_lowercase: bool) -> Tokenizer:
    """The library's tokenizer without special tokens. vocabulary: entry -> id."""
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=MAX_WORD_CHARACTERS))
    tokenizer.normalizer = bert_normalizer(is_lowercase=is_lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


@dataclass(frozen=True)
class TokenizedSentences:
    """Ids of sentences end to end. A sentence of control characters alone leaves nothing, and has length 0."""

    input_ids: np.ndarray  # [tokens] uint16 or int32
    lengths: np.ndarray  # [sentences] int64


class SentenceTokenizer:
    """Turns sentences into ids of one vocabulary, without special tokens."""

    def __init__(self, vocabulary_path: Path, *, is_lowercase: bool) -> None:
        entries = read_entries(vocabulary_path)
        vocabulary = {entry: number for number, entry in enumerate(entries)}
        self.vocabulary_size = len(entries)
        self.dtype = token_dtype(self.vocabulary_size)
        self.tokenizer = bert_tokenizer(vocabulary, is_lowercase=is_lowercase)
        # Text never gives [SEP], since the pre-tokenizer cuts around brackets: it can mark where sentences end.
        self._end_id = vocabulary[SEP]
        self._ids_of_word = _WordCache(self.tokenizer, vocabulary, self.dtype)
        self._ids_of_word[""], self._ids_of_word[END] = b"", packed([self._end_id], self.dtype)
        self._ids_of_chunk = {END: packed([self._end_id], self.dtype)}
        self.is_lowercase = is_lowercase

    def encode(self, sentences: Sequence[str]) -> TokenizedSentences:
        """The ids of sentences as split_sentences gives them; ValueError if one holds a line feed."""
        text = f" {END} ".join([*sentences, ""])
        pieces = pc.split_pattern(pa.array([text], pa.large_string()), " ").values.dictionary_encode()
        places = pieces.indices.to_numpy()[:-1]  # what stands behind the last end is no chunk
        ids_of_place = self._ids_of_chunks(pieces.dictionary.to_pylist())
        ids = _gather(ids_of_place, places, self.dtype)
        is_end = ids == self._end_id
        ends = np.flatnonzero(is_end)
        if len(ends) != len(sentences) or text.count(END) != len(sentences):
            raise ValueError("a sentence that holds a line feed")
        return TokenizedSentences(ids[~is_end], np.diff(ends, prepend=-1) - 1)

    def _ids_of_chunks(self, chunks: Sequence[str]) -> list[bytes]:
        """The ids of distinct chunks; as many as there is room for are remembered."""
        found = [self._ids_of_chunk.get(chunk) for chunk in chunks]
        new = [chunk for chunk, ids in zip(chunks, found, strict=True) if ids is None]
        plain = [chunk for chunk in new if chunk.isascii() and chunk.isprintable()]
        ids_of_new = dict(zip(plain, self._ids_of_plain_chunks(plain), strict=True))
        for chunk in new:
            if chunk not in ids_of_new:
                ids_of_new[chunk] = packed(self.tokenizer.encode(chunk, add_special_tokens=False).ids, self.dtype)
            if len(self._ids_of_chunk) < MAX_CACHED_CHUNKS and len(chunk) <= MAX_CACHED_CHARACTERS:
                self._ids_of_chunk[chunk] = ids_of_new[chunk]
        return [ids_of_new[chunk] if ids is None else ids for chunk, ids in zip(chunks, found, strict=True)]

    def _ids_of_plain_chunks(self, chunks: Sequence[str]) -> list[bytes]:
        """Of printable ASCII, all at once: replacing in one long text is faster than cutting many short ones."""
        text = f" {END} ".join([*chunks, ""])
        if self.is_lowercase:
            text = text.lower()
        for mark in string.punctuation:
            text = text.replace(mark, f" {mark} ")
        ids = b"".join(map(self._ids_of_word.__getitem__, text.split(" ")))
        ends = np.flatnonzero(np.frombuffer(ids, self.dtype) == self._end_id) * self.dtype.itemsize
        starts = [0, *(ends + self.dtype.itemsize).tolist()]
        return [ids[start:end] for start, end in zip(starts, ends.tolist(), strict=False)]

    def id_of(self, entry: str) -> int:
        """The id of an entry that the vocabulary is known to have."""
        number = self.tokenizer.token_to_id(entry)
        if number is None:
            raise KeyError(entry)
        return number


class _WordCache(dict[str, bytes]):
    """Ids of words as the WordPiece model gives them; bounded. A word of the vocabulary is its own longest prefix."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: dict[str, int], dtype: np.dtype[Any]) -> None:
        super().__init__(
            (word, packed([number], dtype)) for word, number in vocabulary.items() if len(word) <= MAX_WORD_CHARACTERS
        )
        self.model, self.dtype, self.max_size = tokenizer.model, dtype, len(self) + MAX_CACHED_WORDS

    def __missing__(self, word: str) -> bytes:
        ids = packed([token.id for token in self.model.tokenize(word)], self.dtype)
        if len(self) < self.max_size and len(word) <= MAX_CACHED_CHARACTERS:
            self[word] = ids
        return ids


def _gather(values: Sequence[bytes], places: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The values at these places end to end. values: packed ids of any number; places: [N] int."""
    lengths = np.fromiter(map(len, values), np.int64, len(values)) // dtype.itemsize
    starts = np.cumsum(lengths) - lengths
    taken = lengths[places]
    first = np.cumsum(taken) - taken  # where each begins in the result
    from_place = np.repeat(starts[places] - first, taken) + np.arange(taken.sum())
    gathered: np.ndarray = np.frombuffer(b"".join(values), dtype)[from_place]
    return gathered


def packed(ids: list[int], dtype: np.dtype[Any]) -> bytes:
    """Ids as they lie in an array of the dtype; np.array(ids, dtype) takes four times as long for a few of them."""
    return array(dtype.char, ids).tobytes()
