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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_lamb.shards.schema import token_dtype
from data_prep.vocabulary import SEP, UNK, read_entries

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
        self.is_lowercase = is_lowercase
        self.tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=MAX_WORD_CHARACTERS))
        self.tokenizer.normalizer = bert_normalizer(is_lowercase=is_lowercase)
        self.tokenizer.pre_tokenizer = BertPreTokenizer()
        # Text never gives [SEP], since the pre-tokeniser cuts around brackets: it can mark where sentences end.
        self._end_id = vocabulary[SEP]
        self._ids_of_chunk: dict[str, bytes] = {SENTENCE_END: self._packed([self._end_id])}
        self._ids_of_word = _WordCache(self)

    def encode(self, sentences: Sequence[str]) -> TokenizedSentences:
        """The ids of sentences as split_sentences gives them; ValueError if one holds a line feed."""
        text = f" {SENTENCE_END} ".join([*sentences, ""])
        chunks = text.split(" ")
        chunks.pop()  # what stands behind the last end
        found = list(map(self._ids_of_chunk.get, chunks))
        if None in found:
            self._fill(chunks, found)
        ids = np.frombuffer(b"".join(found), self.dtype)  # type: ignore[arg-type]
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

    def _fill(self, chunks: list[str], found: list[bytes | None]) -> None:
        """Put the ids of chunks that the cache did not hold into `found`."""
        remembered, fresh = self._ids_of_chunk, dict[str, bytes]()
        for place, chunk in enumerate(chunks):
            if found[place] is None:
                ids = fresh.get(chunk)
                if ids is None:
                    ids = fresh[chunk] = self._ids_of_new_chunk(chunk)
                found[place] = ids
        if len(remembered) + len(fresh) <= MAX_CACHED_CHUNKS:
            remembered.update((chunk, ids) for chunk, ids in fresh.items() if len(chunk) <= MAX_CACHED_CHARACTERS)

    def _ids_of_new_chunk(self, chunk: str) -> bytes:
        if chunk.isascii() and chunk.isprintable():
            words = ASCII_WORDS.findall(chunk.lower() if self.is_lowercase else chunk)
            return b"".join(map(self._ids_of_word.__getitem__, words))
        return self._packed(self.tokenizer.encode(chunk, add_special_tokens=False).ids)

    def _packed(self, ids: list[int]) -> bytes:
        return np.array(ids, self.dtype).tobytes()


class _WordCache(dict[str, bytes]):
    """Ids of words as the WordPiece model gives them; bounded."""

    def __init__(self, owner: SentenceTokenizer) -> None:
        super().__init__()
        self._model, self._packed = owner.tokenizer.model, owner._packed

    def __missing__(self, word: str) -> bytes:
        ids = self._packed([token.id for token in self._model.tokenize(word)])
        if len(self) < MAX_CACHED_WORDS and len(word) <= MAX_CACHED_CHARACTERS:
            self[word] = ids
        return ids
