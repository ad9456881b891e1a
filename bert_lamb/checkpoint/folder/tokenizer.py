"""The tokenizer of a model folder, checked against everything else in the folder that speaks of it."""

import json
from pathlib import Path
from typing import Any

from bert_lamb.checkpoint.folder.files import read_json
from bert_lamb.checkpoint.folder.vocabulary import (
    CONFIG_FILE,
    FIX,
    SPECIAL_TOKENS,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    check_casing,
    check_same_vocabulary,
    check_special_tokens,
    read_vocabulary,
)
from bert_lamb.checkpoint.folder.word_pieces import MAX_WORD_CHARACTERS, Casing, WordPieces
from bert_lamb.errors import UserError

MODEL_CONFIG_FILE = "config.json"  # names the tokenizer's class in some older folders
ADDED_TOKENS_FILE, SPECIAL_TOKENS_FILE = "added_tokens.json", "special_tokens_map.json"
FILES = (TOKENIZER_FILE, VOCABULARY_FILE, CONFIG_FILE, ADDED_TOKENS_FILE, SPECIAL_TOKENS_FILE)
OTHER_VOCABULARIES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "merges.txt", "vocab.json")
# Classes of transformers that are BERT's tokenizer, or take it whole from tokenizer.json.
WORDPIECE_CLASSES = {"Bert", "DistilBert", "Electra", "MobileBert"}
GENERIC_CLASSES = {"PreTrained", "TokenizersBackend"}


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
            check_same_vocabulary(vocabulary, read_vocabulary(folder / VOCABULARY_FILE), folder)
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
    check_special_tokens(special, vocabulary, folder)
    check_casing(vocabulary, casing, special, folder)
    return WordPieces(vocabulary, casing, special)


def read_plain_tokenizer(file: Path, *, is_lowercase: bool) -> WordPieces:
    """The tokenizer of a vocab.txt with nothing beside it, as Google's checkpoints have it.

    is_lowercase: whether text is lower-cased and loses its accents. Raises UserError as `read_tokenizer`.
    """
    vocabulary = read_vocabulary(file)
    casing = Casing(is_lowercase, strips_accents=is_lowercase, spaces_chinese=True)
    check_special_tokens(SPECIAL_TOKENS, vocabulary, file)
    check_casing(
        vocabulary, casing, SPECIAL_TOKENS, file, fix=f"set is_lowercase={'false' if is_lowercase else 'true'}"
    )
    return WordPieces(vocabulary, casing, dict(SPECIAL_TOKENS))


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
