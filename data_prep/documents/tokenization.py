"""Sentences -> WordPiece ids, once for all lengths (station 2).

The ids are those of the `tokenizers` library, with the pipeline of transformers' BertTokenizer (tests compare both on
arbitrary text) and one wanted difference: the five special tokens are not looked for in the text, so an article about
BERT that says "[SEP]" gives brackets and letters.

The library spends most of its time on words it has seen before. Two exact caches stand in front of it:

- chunk -> ids. A chunk is what stands between two spaces ("house," is one). BERT's normaliser works character by
  character, and what it reorders never crosses a space; its pre-tokeniser always cuts there. So the ids of a sentence
  are the ids of its chunks, for every text.
- word -> ids, behind it, for chunks of printable ASCII: lower-cased, cut around punctuation, each word a lookup in the
  vocabulary or a call of the library's WordPiece model. Every other new chunk goes through the whole library.
"""

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_lamb.shards.schema import token_dtype
from data_prep.documents.vocabulary import SEP, UNK, read_entries

MAX_WORD_CHARACTERS = 100  # a longer word is one [UNK], as in Google's tokenization.py
MAX_CACHED_CHUNKS = 1 << 19  # about 100 MB; what comes later is rarer and is not remembered
MAX_CACHED_WORDS = 1 << 18
MAX_CACHED_CHARACTERS = 64  # of a chunk: nobody writes a longer one twice
ASCII_WORDS = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")  # words, and each mark of punctuation by itself
SENTENCE_END = "\n"  # a chunk that no sentence holds


def bert_normalizer(*, is_lowercase: bool) -> BertNormalizer:
    """Google's BasicTokenizer up to the splitting: control characters out, CJK apart, lower case without accents."""
    return BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=is_lowercase, lowercase=is_lowercase
    )


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
        self.tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=MAX_WORD_CHARACTERS))
        self.tokenizer.normalizer = bert_normalizer(is_lowercase=is_lowercase)
        self.tokenizer.pre_tokenizer = BertPreTokenizer()
        # Text never gives [SEP], since the pre-tokeniser cuts around brackets: it can mark where sentences end.
        self._end_id = vocabulary[SEP]
        self._ids_of_word = _WordCache(self.tokenizer, vocabulary, self.dtype)
        self._ids_of_chunk = _ChunkCache(self.tokenizer, self._ids_of_word, self.dtype, is_lowercase=is_lowercase)
        self._ids_of_chunk[SENTENCE_END] = packed([self._end_id], self.dtype)

    def encode(self, sentences: Sequence[str]) -> TokenizedSentences:
        """The ids of sentences as split_sentences gives them; ValueError if one holds a line feed."""
        text = f" {SENTENCE_END} ".join([*sentences, ""])
        chunks = text.split(" ")
        chunks.pop()  # what stands behind the last end
        ids = np.frombuffer(b"".join(map(self._ids_of_chunk.__getitem__, chunks)), self.dtype)
        is_end = ids == self._end_id
        ends = np.flatnonzero(is_end)
        if len(ends) != len(sentences) or text.count(SENTENCE_END) != len(sentences):
            raise ValueError("a sentence that holds a line feed")
        return TokenizedSentences(ids[~is_end], np.diff(ends, prepend=-1) - 1)

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


class _ChunkCache(dict[str, bytes]):
    """Ids of chunks; bounded."""

    def __init__(
        self, tokenizer: Tokenizer, ids_of_word: _WordCache, dtype: np.dtype[Any], *, is_lowercase: bool
    ) -> None:
        super().__init__()
        self.tokenizer, self.ids_of_word, self.dtype, self.is_lowercase = tokenizer, ids_of_word, dtype, is_lowercase

    def __missing__(self, chunk: str) -> bytes:
        if chunk.isascii() and chunk.isprintable():
            words = ASCII_WORDS.findall(chunk.lower() if self.is_lowercase else chunk)
            ids = b"".join(map(self.ids_of_word.__getitem__, words))
        else:
            ids = packed(self.tokenizer.encode(chunk, add_special_tokens=False).ids, self.dtype)
        if len(self) < MAX_CACHED_CHUNKS and len(chunk) <= MAX_CACHED_CHARACTERS:
            self[chunk] = ids
        return ids


def packed(ids: list[int], dtype: np.dtype[Any]) -> bytes:
    """Ids as they lie in an array of the dtype; np.array(ids, dtype) takes four times as long for a few of them."""
    return array(dtype.char, ids).tobytes()
