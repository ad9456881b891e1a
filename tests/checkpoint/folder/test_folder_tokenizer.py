"""The tokenizer of a stranger's folder: its vocabulary and casing arrive, whatever else its files carry does not.

Truth: the ids of the vocabulary, and transformers' tokenizer where the folder is without contradiction.
"""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from bert_lamb.checkpoint.folder.tokenizer import read_tokenizer
from bert_lamb.errors import UserError

TEXT = "Where does Anna live? In Café-Zürich, 東京 (1987)!"


@pytest.fixture
def folder(tmp_path, encoder_dir) -> Path:
    """With both files of the vocabulary."""
    folder = Path(shutil.copytree(encoder_dir, tmp_path / "model"))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in vocabulary), encoding="utf-8")
    return folder


def edit(folder: Path, name: str, change) -> None:
    file = folder / name
    content = json.loads(file.read_text()) if file.exists() else {}
    change(content)
    file.write_text(json.dumps(content))


def in_tokenizer(change):
    return lambda folder: edit(folder, "tokenizer.json", change)


def in_config(**changes):
    return lambda folder: edit(folder, "tokenizer_config.json", lambda content: content.update(changes))


def only_vocab(then=lambda folder: None):
    def spoil(folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        then(folder)

    return spoil


def rewritten(change):
    def spoil(folder: Path) -> None:
        file = folder / "vocab.txt"
        file.write_bytes(change(file.read_bytes()))

    return spoil


def ids(folder: Path, text: str = TEXT) -> list[int]:
    return read_tokenizer(folder).encode([text])[0].ids


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: None,
        only_vocab(),
        only_vocab(rewritten(lambda content: content.replace(b"\n", b"\r\n"))),
        only_vocab(rewritten(lambda content: content.removesuffix(b"\n"))),
        in_tokenizer(
            lambda c: c.update(
                truncation={"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
            )
        ),
        in_tokenizer(
            lambda c: c.update(
                padding={
                    "strategy": {"Fixed": 99},
                    "direction": "Left",
                    "pad_id": 0,
                    "pad_type_id": 0,
                    "pad_token": "[PAD]",
                }
            )
        ),
        in_tokenizer(lambda c: c["model"].pop("type")),  # as older files are
        in_tokenizer(
            lambda c: c["added_tokens"].append(
                {**c["added_tokens"][0], "id": 9, "content": list(c["model"]["vocab"])[9]}
            )
        ),
        in_config(model_max_length=5, padding_side="left", truncation_side="left"),
        in_config(tokenizer_class="BertTokenizerFast", cls_token={"content": "[CLS]", "__type": "AddedToken"}),
        in_config(tokenizer_class="PreTrainedTokenizerFast"),
        in_config(added_tokens_decoder={"0": {"content": "[PAD]", "special": True}}),
        lambda folder: (folder / "vocab.txt").unlink(),
    ],
)
def test_the_same_ids_come_out(folder, encoder_dir, change):
    """Those of transformers for the folder as it was, uncut and unpadded."""
    wanted = AutoTokenizer.from_pretrained(encoder_dir)(TEXT, add_special_tokens=False)["input_ids"]
    change(folder)
    assert ids(folder) == wanted


def cased(content):
    content["normalizer"] |= {"lowercase": False, "strip_accents": False}
    content["model"]["vocab"] |= {"Anna": 186, "Zürich": 187}


def test_a_casing_that_only_tokenizer_json_names_is_kept(folder, tmp_path):
    """transformers takes it for lower case when tokenizer_config.json is silent; what we save says it in both files."""
    (folder / "vocab.txt").unlink()
    edit(folder, "tokenizer.json", cased)
    (folder / "tokenizer_config.json").unlink()
    tokenizer = read_tokenizer(folder)
    assert tokenizer.encode(["Anna Zürich anna"])[0].ids[:2] == [186, 187]
    tokenizer.for_transformers(model_max_length=64).save_pretrained(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs("Anna Zürich anna", add_special_tokens=False)["input_ids"] == ids(folder, "Anna Zürich anna")
    assert (theirs.model_max_length, theirs.padding_side) == (64, "right")
    assert read_tokenizer(tmp_path / "saved").casing == tokenizer.casing


def test_an_entry_that_is_there_twice_has_its_last_id(folder):
    only_vocab(rewritten(lambda content: content + b"anna\n"))(folder)
    assert ids(folder, "anna") == [186]


def capitals(content: bytes) -> bytes:
    return content + "".join(f"Name{chr(65 + i)}\n" for i in range(20)).encode()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (in_config(do_lower_case=False), r"do_lower_case=false in tokenizer_config\.json and true in tokenizer\.json"),
        (in_config(strip_accents=False), r"strip_accents=false in tokenizer_config\.json and true"),
        (in_config(tokenize_chinese_chars=False), "tokenize_chinese_chars=false"),
        (in_config(do_lower_case="yes"), "do_lower_case='yes'"),
        (in_config(tokenizer_class="BertJapaneseTokenizer"), "tokenizer_class 'BertJapaneseTokenizer'"),
        (in_config(tokenizer_class="RobertaTokenizerFast"), "tokenizer_class 'RobertaTokenizerFast'"),
        (
            lambda f: (
                edit(f, "config.json", lambda c: c.update(tokenizer_class="BertJapaneseTokenizer"))
                or (f / "tokenizer_config.json").unlink()
            ),
            "BertJapaneseTokenizer",
        ),
        (in_config(do_basic_tokenize=False), "do_basic_tokenize"),
        (in_config(cls_token="<s>"), "without <s>"),
        (in_config(added_tokens_decoder={"500": {"content": "covid", "special": False}}), "added token 'covid'"),
        (
            lambda f: edit(f, "added_tokens.json", lambda c: c.update({"[E1]": 500})),
            r"added token '\[E1\]' in .*added_tokens",
        ),
        (
            in_tokenizer(
                lambda c: c["added_tokens"].append(
                    {"id": c["model"]["vocab"]["anna"], "content": "anna", "special": False}
                )
            ),
            "added token 'anna'",
        ),
        (in_tokenizer(lambda c: c["added_tokens"].append("anna")), "added token 'anna'"),
        (
            in_tokenizer(lambda c: c["model"].update(type="BPE", merges=[])),
            r"model 'BPE' in .*tokenizer\.json; expected BERT's WordPiece",
        ),
        (in_tokenizer(lambda c: c["model"].update(type="Unigram")), "model 'Unigram'"),
        (in_tokenizer(lambda c: c.update(model=[])), "model None"),
        (in_tokenizer(lambda c: c.update(normalizer=None)), "normalizer None"),
        (in_tokenizer(lambda c: c.update(normalizer={"type": "Lowercase"})), "normalizer 'Lowercase'"),
        (in_tokenizer(lambda c: c.update(pre_tokenizer={"type": "Metaspace"})), "pre_tokenizer 'Metaspace'"),
        (in_tokenizer(lambda c: c["model"].update(continuing_subword_prefix="@@")), "continuing_subword_prefix='@@'"),
        (in_tokenizer(lambda c: c["model"].update(vocab=["a"])), "without a vocabulary"),
        (in_tokenizer(lambda c: c["model"]["vocab"].update({"[PAD]": 1})), "without a vocabulary"),
        (
            in_tokenizer(lambda c: c["model"]["vocab"].update({"new": 500})),
            "1 entries that differ between .*'new': id 500 and None",
        ),
        (rewritten(lambda content: content + b"new\n"), "1 entries that differ .*'new': id None and 186"),
        (
            lambda f: (f / "tokenizer.json").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
            "tokenizer.json that is a git-lfs",
        ),
        (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer\.json that is not json"),
        (lambda f: (f / "tokenizer.json").write_text("[]"), r"tokenizer\.json with list"),
        (
            only_vocab(rewritten(lambda c: b"version https://git-lfs.github.com/spec/v1\n")),
            r"vocab\.txt that is a git-lfs",
        ),
        (only_vocab(rewritten(lambda c: c.decode().encode("latin1", "replace"))), r"vocab\.txt that is not UTF-8"),
        (only_vocab(rewritten(lambda c: c.decode().encode("utf-16"))), r"vocab\.txt that is not UTF-8"),
        (only_vocab(rewritten(lambda c: b"\xef\xbb\xbf" + c)), "byte order mark"),
        (
            only_vocab(rewritten(lambda c: c.replace(b"[SEP]\n", b"").replace(b"[PAD]\n", b""))),
            r"without \[SEP\], \[PAD\]",
        ),
        (only_vocab(rewritten(lambda c: b"")), r"without \[UNK\], \[CLS\]"),
        (
            only_vocab(rewritten(capitals)),
            "do_lower_case=true .* 20 of .* entries, such as 'NameA', can then not occur",
        ),
        (only_vocab(in_config(do_lower_case=False)), "do_lower_case=false with a vocabulary that has no capital"),
        (only_vocab(lambda f: (f / "vocab.txt").rename(f / "spiece.model")), r"no vocabulary in .*, but spiece\.model"),
    ],
)
def test_what_is_not_berts_or_contradicts_itself_is_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(UserError, match=message) as refusal:
        read_tokenizer(folder)
    assert "\n" not in str(refusal.value)


def test_a_chinese_vocabulary_without_capitals_is_warned_of(folder):
    """As bert-base-chinese: do_lower_case=false, most entries without letters of two cases. English is refused."""
    chinese = "".join(f"{chr(0x4E00 + number)}\n" for number in range(300)).encode()
    only_vocab(in_config(do_lower_case=False))(folder)
    with pytest.raises(UserError, match="no capital"):
        read_tokenizer(folder)
    rewritten(lambda content: content + chinese)(folder)
    assert "no capital letter" in (read_tokenizer(folder).warn_of_casing() or "")
    rewritten(lambda content: content + b"IBM\n")(folder)
    assert read_tokenizer(folder).warn_of_casing() is None
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    rewritten(lambda content: content.replace(b"IBM\n", b""))(folder)
    assert read_tokenizer(folder).warn_of_casing() is None
