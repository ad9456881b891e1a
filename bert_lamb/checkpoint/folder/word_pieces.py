"""BERT's WordPiece tokenizer: text -> ids and the characters of each token.

It is put together from the vocabulary and four settings instead of taken from a file as a whole: truncation, padding
and added tokens that a tokenizer.json may carry would change what the model reads without a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertTokenizer

MAX_WORD_CHARACTERS = 100  # a longer word is one [UNK], as in Google's tokenization.py


@dataclass(frozen=True)
class Casing:
    """What is done to text before it is cut; the arguments of BERT's normalizer."""

    is_lowercase: bool
    strips_accents: bool
    spaces_chinese: bool

    def normalizer(self) -> BertNormalizer:
        return BertNormalizer(
            clean_text=True,
            handle_chinese_chars=self.spaces_chinese,
            strip_accents=self.strips_accents,
            lowercase=self.is_lowercase,
        )


@dataclass(frozen=True)
class Encoded:
    """The tokens of one text. offsets: the characters of each token, end exclusive."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class WordPieces:
    """Text -> ids and character offsets; special tokens that are written in a text are text, as in data_prep."""

    def __init__(self, vocabulary: dict[str, int], casing: Casing, special: dict[str, str]) -> None:
        self.vocabulary, self.casing, self.special = vocabulary, casing, special
        self.unk_id, self.cls_id, self.sep_id, self.pad_id = (
            vocabulary[special[name]] for name in ("unk", "cls", "sep", "pad")
        )
        model = WordPiece(vocabulary, unk_token=special["unk"], max_input_chars_per_word=MAX_WORD_CHARACTERS)
        self._tokenizer = Tokenizer(model)
        self._tokenizer.normalizer = casing.normalizer()
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    def warn_of_casing(self) -> str | None:
        """One line where words with capitals have no entry, or None; Google's Chinese BERT is such a folder."""
        entries = [entry for entry in self.vocabulary if entry not in self.special.values()]
        if self.casing.is_lowercase or not has_small_letters_alone(entries, 0):
            return None
        return "do_lower_case=false with a vocabulary that has no capital letter: words with one become [UNK] or pieces"

    @property
    def num_ids(self) -> int:
        """Rows that the word embeddings need: the largest id and 1."""
        return max(self.vocabulary.values()) + 1

    @property
    def entries(self) -> list[str]:
        """The entry of each id, as the lines of a vocab.txt; empty for an id that has none."""
        texts = {number: entry for entry, number in self.vocabulary.items()}
        return [texts.get(number, "") for number in range(self.num_ids)]

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Each text whole, without special tokens around it."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [Encoded(one.ids, one.offsets) for one in encodings]

    def for_transformers(self, *, model_max_length: int) -> BertTokenizer:
        """The same tokenizer for the folder of the fine-tuned model, with every setting written down."""
        return BertTokenizer(
            vocab=self.vocabulary,
            do_lower_case=self.casing.is_lowercase,
            strip_accents=self.casing.strips_accents,
            tokenize_chinese_chars=self.casing.spaces_chinese,
            model_max_length=model_max_length,
            **{f"{name}_token": token for name, token in self.special.items() if token in self.vocabulary},
        )


def has_small_letters_alone(entries: Sequence[str], share: float) -> bool:
    """Whether more than `share` of the entries that hold letters have small ones, and none has a capital one."""
    ordinary = [entry for entry in entries if not (entry.startswith("[") and entry.endswith("]"))]
    with_letters = [entry for entry in ordinary if any(map(str.isalpha, entry))]
    num_small = sum(entry != entry.upper() for entry in with_letters)
    return num_small > share * len(with_letters) and not any(entry != entry.lower() for entry in with_letters)
