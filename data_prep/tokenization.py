"""Sentences -> WordPiece ids, once for all lengths (station 2).

The pipeline is that of transformers' BertTokenizer (a test compares them), with one wanted difference: the five special
tokens are not looked for in the text, so an article about BERT that says "[SEP]" gives brackets and letters.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_lamb.shards.schema import token_dtype
from data_prep.vocabulary import UNK, read_entries

MAX_WORD_CHARACTERS = 100  # a longer word is one [UNK], as in Google's tokenization.py


def bert_normalizer(*, is_lowercase: bool) -> BertNormalizer:
    """Google's BasicTokenizer up to the splitting: control characters out, CJK apart, lower case without accents."""
    return BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=is_lowercase, lowercase=is_lowercase
    )


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

    def encode(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """[tokens] ids of each sentence; empty where nothing is left of it, as with control characters alone."""
        encodings = self.tokenizer.encode_batch_fast(list(sentences), add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def id_of(self, entry: str) -> int:
        """The id of an entry that the vocabulary is known to have."""
        number = self.tokenizer.token_to_id(entry)
        if number is None:
            raise KeyError(entry)
        return number
