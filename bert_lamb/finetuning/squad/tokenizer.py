"""The WordPiece tokenizer of a model folder, checked against everything else in the folder that speaks of it.

It is put together from the vocabulary and four settings instead of taken from the file as a whole: truncation, padding
and added tokens that a tokenizer.json may carry would change what the model reads without a word.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertTokenizer

from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.files import LFS_POINTER, PULL, read_bytes, read_json

TOKENIZER_FILE, VOCABULARY_FILE, CONFIG_FILE = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
MODEL_CONFIG_FILE = "config.json"  # names the tokenizer's class in some older folders
ADDED_TOKENS_FILE, SPECIAL_TOKENS_FILE = "added_tokens.json", "special_tokens_map.json"
FILES = (TOKENIZER_FILE, VOCABULARY_FILE, CONFIG_FILE, ADDED_TOKENS_FILE, SPECIAL_TOKENS_FILE)
OTHER_VOCABULARIES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "merges.txt", "vocab.json")
SPECIAL_TOKENS = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
# Classes of transformers that are BERT's tokenizer, or take it whole from tokenizer.json.
WORDPIECE_CLASSES = {"Bert", "DistilBert", "Electra", "MobileBert"}
GENERIC_CLASSES = {"PreTrained", "TokenizersBackend"}
MAX_WORD_CHARACTERS = 100  # a longer word is one [UNK], as in Google's tokenization.py
MAX_UNREACHABLE_SHARE = 0.05  # of the vocabulary; more of it that text can never give is another casing's vocabulary
# Of the entries with letters: where more have small ones, it was made of text in lower case; else most of its text has
# no letters of two cases, as in bert-base-chinese, whose folder says do_lower_case=false.
MAX_SHARE_WITHOUT_CAPITALS = 0.5
FIX = "put the tokenizer that the model was pretrained with into its folder"


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


def read_tokenizer(folder: Path) -> WordPieces:
    """The tokenizer of a model folder: from tokenizer.json, else from vocab.txt; tokenizer_config.json is held to it.

    Raises UserError for a tokenizer that is not BERT's WordPiece, for files of the folder that contradict each other,
    and for a vocabulary without BERT's special tokens or of another casing than the text is given.
    """
    settings = _read_object(folder / CONFIG_FILE)
    _check_class({**_read_object(folder / MODEL_CONFIG_FILE), **settings}, folder)
    content = _read_object(folder / TOKENIZER_FILE)
    if content:
        vocabulary = _vocabulary_of(content, folder / TOKENIZER_FILE)
        casing = _casing_of(content, settings, folder)
        _check_added_tokens(content.get("added_tokens"), vocabulary, folder / TOKENIZER_FILE)
        if (folder / VOCABULARY_FILE).is_file():
            _check_same_vocabulary(vocabulary, read_vocabulary(folder / VOCABULARY_FILE), folder)
    elif (folder / VOCABULARY_FILE).is_file():
        vocabulary = read_vocabulary(folder / VOCABULARY_FILE)
        is_lowercase = _boolean(settings, "do_lower_case", True, folder / CONFIG_FILE)
        casing = Casing(
            is_lowercase,
            _boolean(settings, "strip_accents", is_lowercase, folder / CONFIG_FILE),
            _boolean(settings, "tokenize_chinese_chars", True, folder / CONFIG_FILE),
        )
    else:
        others = [name for name in OTHER_VOCABULARIES if (folder / name).exists()]
        found = f"no vocabulary in {folder}" + (f", but {', '.join(others)} of another tokenizer" if others else "")
        raise UserError(found=found, expected=f"BERT's: {TOKENIZER_FILE} or {VOCABULARY_FILE}", fix=FIX)
    _check_added_tokens(list(_of_decoder(settings.get("added_tokens_decoder"))), vocabulary, folder / CONFIG_FILE)
    added = _read_object(folder / ADDED_TOKENS_FILE)
    _check_added_tokens(
        [{"content": token, "id": number, "special": True} for token, number in added.items()],
        vocabulary,
        folder / ADDED_TOKENS_FILE,
    )
    special = _special_tokens({**_read_object(folder / SPECIAL_TOKENS_FILE), **settings})
    _check_special_tokens(special, vocabulary, folder)
    _check_casing(vocabulary, casing, special, folder)
    return WordPieces(vocabulary, casing, special)


def read_vocabulary(file: Path) -> dict[str, int]:
    """Entry -> id of a vocab.txt, one entry a line; of an entry that is there twice the last counts, as for Google."""
    content = read_bytes(file, expected="one WordPiece a line", fix=FIX)
    if content.startswith(LFS_POINTER):
        raise UserError(found=f"{file} that is a git-lfs pointer", expected="the vocabulary", fix=PULL)
    try:
        lines = content.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(found=f"{file} that is not UTF-8 ({error})", expected="UTF-8", fix=FIX) from error
    if lines[0].startswith("\ufeff"):
        raise UserError(
            found=f"{file} with a byte order mark, which would be part of its first entry",
            expected="UTF-8 without it",
            fix="remove its first three bytes",
        )
    return {line.removesuffix("\r"): number for number, line in enumerate(lines)}


def _read_object(file: Path) -> dict[str, Any]:
    """The json object in a file, empty if there is no such file."""
    if not file.exists():
        return {}
    content = read_json(file, expected="a json object", fix=FIX)
    if not isinstance(content, dict) or (not content and file.name == TOKENIZER_FILE):
        raise UserError(found=f"{file} with {type(content).__name__}", expected="a json object", fix=FIX)
    return content


def _check_class(settings: dict[str, Any], folder: Path) -> None:
    """Refuse what another class of tokenizer would do: Japanese word cutters, byte pairs, code of the folder's own."""
    name = settings.get("tokenizer_class")
    bare = str(name).removesuffix("Fast").removesuffix("Tokenizer")
    allowed = WORDPIECE_CLASSES | (GENERIC_CLASSES if (folder / TOKENIZER_FILE).exists() else set())
    if name is not None and bare not in allowed:
        raise UserError(
            found=f"tokenizer_class {name!r} in {folder}",
            expected="BertTokenizer, which cuts into WordPieces",
            fix="use a model with BERT's tokenizer",
        )
    if settings.get("do_basic_tokenize", True) is not True or settings.get("never_split"):
        raise UserError(
            found=f"do_basic_tokenize=false or never_split in {folder / CONFIG_FILE}",
            expected="BERT's own cutting into words",
            fix="use a model with BERT's tokenizer",
        )


def _vocabulary_of(content: dict[str, Any], file: Path) -> dict[str, int]:
    """Entry -> id of a tokenizer.json, whose parts must be BERT's."""
    parts = {name: content.get(name) or {} for name in ("model", "normalizer", "pre_tokenizer")}
    found = {name: part.get("type") if isinstance(part, dict) else part for name, part in parts.items()}
    model = parts["model"] if isinstance(parts["model"], dict) else {}
    if found["model"] is None and "continuing_subword_prefix" in model and "merges" not in model:
        found["model"] = "WordPiece"  # older files do not name it
    expected = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
    other = next((name for name in expected if found[name] != expected[name]), None)
    if other is not None:
        raise UserError(
            found=f"{other} {found[other]!r} in {file}",
            expected=f"BERT's {expected[other]}",
            fix="use a model with BERT's tokenizer",
        )
    details = {"continuing_subword_prefix": "##", "max_input_chars_per_word": MAX_WORD_CHARACTERS}
    for key, value in details.items():
        if model.get(key, value) != value:
            raise UserError(found=f"{key}={model[key]!r} in {file}", expected=repr(value), fix=FIX)
    if parts["normalizer"].get("clean_text", True) is not True:
        raise UserError(found=f"clean_text=false in {file}", expected="true, as in BERT", fix=FIX)
    vocabulary = model.get("vocab")
    is_sound = isinstance(vocabulary, dict) and all(type(n) is int and n >= 0 for n in vocabulary.values())
    if not is_sound or not vocabulary or len(set(vocabulary.values())) != len(vocabulary):
        raise UserError(found=f"{file} without a vocabulary of entries and their ids", expected="one", fix=FIX)
    return dict(vocabulary)


def _casing_of(content: dict[str, Any], settings: dict[str, Any], folder: Path) -> Casing:
    """The casing that tokenizer.json says; what tokenizer_config.json says as well must be the same."""
    normalizer, file = content["normalizer"], folder / TOKENIZER_FILE
    is_lowercase = _boolean(normalizer, "lowercase", True, file)
    strips_accents = _boolean(normalizer, "strip_accents", is_lowercase, file)
    casing = Casing(is_lowercase, strips_accents, _boolean(normalizer, "handle_chinese_chars", True, file))
    said = {
        "do_lower_case": casing.is_lowercase,
        "strip_accents": casing.strips_accents,
        "tokenize_chinese_chars": casing.spaces_chinese,
    }
    for key, value in said.items():
        other = _boolean(settings, key, value, folder / CONFIG_FILE)
        if other is not value:
            raise UserError(
                found=f"{key}={json.dumps(other)} in {CONFIG_FILE} and {json.dumps(value)} in {TOKENIZER_FILE} "
                f"of {folder}",
                expected="the same in both",
                fix="set both to what the model was pretrained with",
            )
    return casing


def _boolean(content: dict[str, Any], key: str, default: bool, file: Path) -> bool:
    value = content.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UserError(found=f"{key}={value!r} in {file}", expected="true or false", fix=FIX)
    return value


def _check_same_vocabulary(ours: dict[str, int], other: dict[str, int], folder: Path) -> None:
    # Of an entry that is twice in vocab.txt both readings keep the last, so its earlier number is free in both.
    differing = sorted(
        (ours.get(entry, other.get(entry, 0)), entry)
        for entry in ours.keys() | other.keys()
        if ours.get(entry) != other.get(entry)
    )
    if differing:
        entry = differing[0][1]
        raise UserError(
            found=f"{len(differing):,} entries that differ between {TOKENIZER_FILE} and {VOCABULARY_FILE} of {folder}, "
            f"such as {entry!r}: id {ours.get(entry)} and {other.get(entry)}",
            expected="the same vocabulary in both",
            fix="remove the one that the model was not pretrained with",
        )


def _of_decoder(decoder: Any) -> list[Any]:
    if decoder is None or not isinstance(decoder, dict):
        return [] if decoder is None else [decoder]
    return [{**token, "id": number} if isinstance(token, dict) else token for number, token in decoder.items()]


def _check_added_tokens(added: Any, vocabulary: dict[str, int], file: Path) -> None:
    """Special tokens that the vocabulary holds are fine; others would be looked for in the text, which is not done."""
    for token in added or []:
        is_sound = isinstance(token, dict) and isinstance(token.get("content"), str)
        if not is_sound or str(vocabulary.get(token["content"])) != str(token.get("id")) or not token.get("special"):
            shown = token.get("content") if isinstance(token, dict) else token
            raise UserError(
                found=f"the added token {shown!r} in {file}",
                expected="WordPieces of the vocabulary, and special tokens with their ids there",
                fix="use a model without added tokens",
            )


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """Their texts: BERT's, or what the settings call them."""
    special = {}
    for name, default in SPECIAL_TOKENS.items():
        value = settings.get(f"{name}_token") or default
        special[name] = str(value.get("content") if isinstance(value, dict) else value)
    return special


def _check_special_tokens(special: dict[str, str], vocabulary: dict[str, int], folder: Path) -> None:
    missing = [special[name] for name in ("unk", "cls", "sep", "pad") if special[name] not in vocabulary]
    if missing:
        raise UserError(
            found=f"a vocabulary of {len(vocabulary):,} entries without {', '.join(missing)} in {folder}",
            expected="BERT's special tokens among them",
            fix=FIX,
        )


def has_small_letters_alone(entries: Sequence[str], share: float) -> bool:
    """Whether more than `share` of the entries that hold letters have small ones, and none has a capital one."""
    ordinary = [entry for entry in entries if not (entry.startswith("[") and entry.endswith("]"))]
    with_letters = [entry for entry in ordinary if any(map(str.isalpha, entry))]
    num_small = sum(entry != entry.upper() for entry in with_letters)
    return num_small > share * len(with_letters) and not any(entry != entry.lower() for entry in with_letters)


def _check_casing(vocabulary: dict[str, int], casing: Casing, special: dict[str, str], folder: Path) -> None:
    """Refuse a casing under which much of the vocabulary cannot occur, or under which capitals have no entry."""
    normalizer = casing.normalizer()
    words = [entry for entry in vocabulary if entry not in special.values() and not entry.startswith("[unused")]
    bare = [entry.removeprefix("##") for entry in words]
    setting = f"do_lower_case={json.dumps(casing.is_lowercase)}"
    if casing.is_lowercase:
        lost = [entry for entry in bare if normalizer.normalize_str(entry).strip() != entry and entry.isalpha()]
        if len(lost) > MAX_UNREACHABLE_SHARE * len(words):
            raise UserError(
                found=f"{setting} (strip_accents={json.dumps(casing.strips_accents)}) with a vocabulary of which "
                f"{len(lost):,} of {len(words):,} entries, such as {lost[0]!r}, can then not occur in {folder}",
                expected="the casing that the vocabulary was made with",
                fix=f"set do_lower_case and strip_accents in its {CONFIG_FILE} and {TOKENIZER_FILE}",
            )
    elif has_small_letters_alone(bare, MAX_SHARE_WITHOUT_CAPITALS):
        raise UserError(
            found=f"{setting} with a vocabulary that has no capital letter in {folder}",
            expected="the casing that the vocabulary was made with",
            fix=f"set do_lower_case in its {CONFIG_FILE} and {TOKENIZER_FILE}",
        )
