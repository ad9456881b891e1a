"""Markup, sentences, vocabulary and token ids, each against an independent truth.

Mutations that must turn it red: keeping list items or captions, dropping a sentence, leaving the alphabet's order to
tokenizers, looking for special tokens in the text, is_lowercase not reaching the accents.
"""

import subprocess
import sys

import numpy as np
import pytest
import sentencex
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from bert_lamb.errors import UserError
from data_prep.documents.sentences import split_sentences
from data_prep.documents.tokenization import SentenceTokenizer, bert_normalizer
from data_prep.documents.vocabulary import count_characters, put_in_place, train_entries
from data_prep.documents.vocabulary_file import SPECIAL_TOKENS, read_entries
from data_prep.documents.wikitext import plain_text

PAGE = """{{Infobox thing
| name = Thing {{nested|x=1}}
}}
<!-- a comment -->
'''Thing''' is a ''good'' [[object (philosophy)|object]] of [[Paris]].<ref name="a">Smith, ''Book''.</ref> It weighs
{{convert|3|kg}} 3&nbsp;kg &amp; more.<ref name="a" />

[[File:Thing.jpg|thumb|left|A caption with a [[link]]]]
== History ==
{| class="wikitable"
! Year !! Event
|-
| 1900 || A cell
|}
The [http://example.org official site] (, ) opened in 1990.
* a list item
# another [[item]]
; a term
Text after <math>x^2</math> the list.<br />Second line.
<gallery>
File:A.jpg|gallery caption
</gallery>

== See also ==
* [[Other thing]]
[[:Category:Things]] remain as words.
[[Category:Things]]
[[de:Ding]]
__NOTOC__
"""


def test_wikitext_keeps_running_text_only():
    assert plain_text(PAGE).split("\n") == [
        "Thing is a good object of Paris. It weighs 3 kg 3 kg & more.",
        "The official site opened in 1990.",
        "Text after the list.",
        "Second line.",
        "Category:Things remain as words.",
    ]


@pytest.mark.parametrize("markup", ["", "{{unclosed", "[[unclosed", "{| class=x\n| cell", "<ref>open", "'''", "\x00"])
def test_broken_markup_does_not_stop_the_work(markup):
    assert "cell" not in plain_text(markup)
    assert "{{" not in plain_text(markup)


def test_broken_markup_leaves_the_rest():
    assert plain_text("{{unclosed\nPlain text stands here.").endswith("Plain text stands here.")


text_with_marks = st.text(st.one_of(st.sampled_from("ab A.B!? \n\t\"'()é。\u3000Mr.1)"), st.characters(codec="utf-8")))


@settings(deadline=None)
@given(text_with_marks)
def test_sentences_keep_every_character_but_white_space(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() and sentence for sentence in sentences)
    for line in text.splitlines():
        assert "".join(sentencex.segment("en", line)) == line


def test_sentences_are_cut_where_a_reader_would():
    text = "Dr. Smith paid $3.50 to Mr. Jones. He left!\nA new line begins\nand another."
    assert split_sentences(text) == [
        "Dr. Smith paid $3.50 to Mr. Jones.",
        "He left!",
        "A new line begins",
        "and another.",
    ]


CORPUS = (
    "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs. "
    "Über naïve façades; señor Çelik's œuvre cost 3,50 € in 東京 and 大阪, unbelievable unhappiness! "
) * 3
SAMPLES = [
    "Über naïve façades!",
    "ÜBER Ünder éé e\u0301",
    "東京大阪 in 東 京",
    "soft\u00adhyphen zero\u200bwidth nul\x00 bell\x07 tab\tend\r",
    "unbelievable-unhappiness's $3,50 [x] <y> {z} ~`^|=+",
    "\u00a0\u3000spaces\u2003here",
    "x" * 101 + " " + "y" * 100,
    "emoji 😀 and Ελληνικά and עברית and العربية",
    "",
    "İstanbul ß ﬁ Ⅳ ½",
]


@pytest.fixture(scope="module")
def vocabulary_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    normalizer = bert_normalizer(is_lowercase=True)
    entries = train_entries([CORPUS], count_characters(CORPUS, normalizer=normalizer), size=300, normalizer=normalizer)
    put_in_place(path, entries, scratch_dir=path.parent)
    return path


def ids_of(tokenizer, sentences):
    """A list of ids for each sentence."""
    found = tokenizer.encode(sentences)
    ends = np.cumsum(found.lengths)[:-1]
    return [ids.tolist() for ids in np.split(found.input_ids, ends)] if sentences else []


@pytest.mark.parametrize("is_lowercase", [True, False])
def test_ids_equal_the_python_tokenizer_of_the_original_code(vocabulary_path, is_lowercase):
    """transformers' BertTokenizerLegacy is Google's tokenization.py, pure Python; ours is Rust."""
    theirs = BertTokenizerLegacy(str(vocabulary_path), do_lower_case=is_lowercase)
    ours = SentenceTokenizer(vocabulary_path, is_lowercase=is_lowercase)
    for text, ids in zip(SAMPLES, ids_of(ours, SAMPLES), strict=True):
        assert ids == theirs.convert_tokens_to_ids(theirs.tokenize(text)), text


# The old scripts only, and no unassigned code points: tokenizers carries the tables of Unicode 8, Python newer ones, so
# they differ on punctuation that was added since (U+2E43) and on what is not assigned.
assigned = st.characters(codec="utf-8", max_codepoint=0x05FF, exclude_categories=["Cn"])


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.one_of(st.sampled_from("abcdefÀé東 ,.'-\t"), assigned)))
def test_ids_equal_on_arbitrary_text(vocabulary_path, text):
    theirs = BertTokenizerLegacy(str(vocabulary_path), do_lower_case=True)
    assume(not any(token in text for token in SPECIAL_TOKENS))  # theirs takes them for such, ours for text
    text = text.replace("\n", "\t")  # sentences hold no line feed
    (ids,) = ids_of(SentenceTokenizer(vocabulary_path, is_lowercase=True), [text])
    assert ids == theirs.convert_tokens_to_ids(theirs.tokenize(text))


any_text = st.text(
    st.one_of(st.sampled_from("abcAB é\u0301東 ,.'-\t\r\x0b\x85\u2028\u200b\x00[]"), st.characters(codec="utf-8"))
)


@pytest.mark.parametrize("is_lowercase", [True, False])
def test_ids_equal_the_library_s_on_every_text(vocabulary_path, is_lowercase):
    """The caches are exact: whatever was seen before, ids are those of one call of `tokenizers` on the whole text."""
    ours = SentenceTokenizer(vocabulary_path, is_lowercase=is_lowercase)

    @settings(deadline=None, max_examples=400)
    @given(st.lists(any_text.filter(lambda text: "\n" not in text), max_size=5))
    def hold(sentences):
        encodings = ours.tokenizer.encode_batch_fast(sentences, add_special_tokens=False)
        assert ids_of(ours, sentences) == [encoding.ids for encoding in encodings]

    hold()


def test_full_caches_change_no_id(vocabulary_path, monkeypatch):
    words = [f"word{number} Naïve{number}, x{number}-y" for number in range(200)]
    expected = ids_of(SentenceTokenizer(vocabulary_path, is_lowercase=True), words)
    for name in ("MAX_CACHED_CHUNKS", "MAX_CACHED_WORDS", "MAX_CACHED_CHARACTERS"):
        monkeypatch.setattr(f"data_prep.documents.tokenization.{name}", 3)
    tokenizer = SentenceTokenizer(vocabulary_path, is_lowercase=True)
    assert [ids for word in words for ids in ids_of(tokenizer, [word])] == expected
    assert len(tokenizer._ids_of_chunk) <= 3
    assert len(tokenizer._ids_of_word) <= 3 + tokenizer.vocabulary_size


def test_a_sentence_with_a_line_feed_is_a_defect(vocabulary_path):
    tokenizer = SentenceTokenizer(vocabulary_path, is_lowercase=True)
    for sentences in (["a \n b"], ["a\nb"], ["\n"]):
        with pytest.raises(ValueError, match="line feed"):
            tokenizer.encode(sentences)


def test_special_tokens_are_not_looked_for_in_text(vocabulary_path):
    (ids,) = ids_of(SentenceTokenizer(vocabulary_path, is_lowercase=True), ["a [SEP] b [CLS] [MASK]"])
    assert not set(ids) & {2, 3, 4}


TRAIN = """
import sys
from data_prep.documents.tokenization import bert_normalizer
from data_prep.documents.vocabulary import count_characters, train_entries
text = sys.stdin.read()
normalizer = bert_normalizer(is_lowercase=True)
counts = count_characters(text, normalizer=normalizer)
entries = train_entries(text.splitlines(), counts, size=400, normalizer=normalizer)
print("\\n".join(entries))
"""


def test_training_gives_the_same_vocabulary_in_every_process():
    """tokenizers alone numbers the alphabet by a hash table seeded anew in each process."""
    words = "\n".join(f"{first}{second}" for first in "abcdefghij" for second in ("xyz", "zyx", "lmn", "opq", "rst"))
    outcomes = {
        subprocess.run([sys.executable, "-c", TRAIN], input=words, capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(outcomes) == 1
    entries = outcomes.pop().split("\n")
    assert entries[:5] == list(SPECIAL_TOKENS)


def test_trained_vocabulary_has_special_tokens_letters_and_size(vocabulary_path):
    entries = read_entries(vocabulary_path)
    assert len(entries) <= 300
    assert entries[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"a", "##a", "東", "the"} <= set(entries)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\nword\n", r"no \[SEP\], \[MASK\] among the 4 entries"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", r"more than once .*\['a'\]"),
        (b"[PAD]\n\xff\n", "utf-8"),
    ],
)
def test_vocabularies_that_are_none_of_berts(tmp_path, content, complaint):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_entries(tmp_path / "vocab.txt")
    with pytest.raises(UserError, match="no file"):
        read_entries(tmp_path / "absent.txt")
