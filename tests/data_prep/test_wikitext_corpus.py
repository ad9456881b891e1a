"""WikiText as a source: its articles are documents, its headings go, its spacing is undone, and no token changes.

Mutations that must turn it red: a heading kept, a title in running text taken for one, `@-@` left, a quotation mark
joined to the wrong side, <unk> as training text.
"""

import gzip
import json

import pytest
from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_lamb.errors import UserError
from data_prep.documents.cleaning import clean
from data_prep.documents.sentences import split_sentences
from data_prep.documents.tokenization import bert_normalizer
from data_prep.documents.tokenized import plain_text
from data_prep.settings import Cleaning
from data_prep.sources import KINDS, TOKENIZED, Document, Source, read_documents

ARTICLES = r"""
 = Old Mill ( river ) = 
 
 The Old Mill is a well @-@ known mill of 1 @,@ 200 square metres ( 3 @.@ 5 % ) . It isn 't in use .
 = no title = 
 
 = = History = = 
 
 = nor this = 
 It was the " Mill of the North " ; they didn 't say " why " . The mill 's owners left .
 
 = = = Later years = = = 
 
 It closed at 5 : 30 [ sic ] , they 'll say !
 
 = E = mc 2 = 
 
 A formula .
"""
OLD_MILL = [
    "The Old Mill is a well-known mill of 1,200 square metres (3.5%). It isn't in use.",
    "= no title =",
    "= nor this =",
    'It was the "Mill of the North"; they didn\'t say "why". The mill\'s owners left.',
    "It closed at 5: 30 [sic], they'll say!",
]


def documents(path, kind="wikitext", *, stretch_bytes=10**9, **changes):
    source = Source("wiki", kind, str(path), **changes)
    return list(read_documents(source, tuple(KINDS[kind].stretches(source, stretch_bytes=stretch_bytes))))


@pytest.mark.parametrize("name", ["wiki.train.raw", "wiki.train.raw.gz"])
def test_articles_are_documents(tmp_path, name):
    content = ARTICLES.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (tmp_path / "notes.json").write_text("{}")
    mill, formula = documents(tmp_path)
    assert (mill.key, mill.markup) == (f"{name}#1", TOKENIZED)
    assert formula.key == f"{name}#{content.index(b' = E = mc')}"
    assert clean(mill, Cleaning(min_characters=1)) == ("\n".join(OLD_MILL), "")
    assert clean(formula, Cleaning(min_characters=1)) == ("A formula.", "")


def test_cut_anywhere_the_articles_are_the_same(tmp_path):
    (tmp_path / "a.raw").write_text(ARTICLES + (" " + ARTICLES) * 30)
    expected = documents(tmp_path)
    assert len(expected) == 62
    for stretch_bytes in (1, 100, 333, 1000):
        assert documents(tmp_path, stretch_bytes=stretch_bytes) == expected


def tokens(text):
    pieces = BertPreTokenizer().pre_tokenize_str(bert_normalizer(is_lowercase=True).normalize_str(text))
    return [piece for piece, _ in pieces]


HARD = """ " One " two " three . " ( " four " ) , " five " 's 6 @.@ 7 @-@ 8 @,@ 9 : £ 10 , $ 11 , € 12 ; 13 % ! ?
 the players ' " own " , rock 'n ' roll , the '90s , he 's , it 'S , can n't , ' quoted ' words . 5 ' 10 " tall
 a @-@ b @-@ c @-@ d ( e ( f ) [ g ] { h } ) i ) j ( k , l .m , n .. ... o / p — r … s 日 本 , 語 . é . ' t 'tis"""


@pytest.mark.parametrize("line", [*HARD.split("\n"), *ARTICLES.split("\n")])
def test_undoing_the_spaces_changes_no_token(line):
    """BERT cuts around punctuation anyway: whatever is joined, the tokens are those of the file, joints apart."""
    without_joints = line.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".")
    assert tokens(plain_text(line)) == tokens(without_joints)


def test_sentences_end_where_they_end():
    line = ' It closed . It was the last one ( of 3 ) . Was it ? " It was , " they said .'
    assert split_sentences(plain_text(line)) == [
        "It closed.",
        "It was the last one (of 3).",
        "Was it?",
        '"It was," they said.',
    ]


def test_the_form_without_rare_words_is_refused(tmp_path):
    (tmp_path / "wiki.train.tokens").write_text(ARTICLES.replace("Mill", "<unk>"))
    with pytest.raises(UserError, match=r"<unk> in place of rare words.*fetch wikitext-103-raw"):
        documents(tmp_path)


def test_a_document_with_a_lost_word_is_left_out():
    document = Document("a", "A river in the <unk> of the north .", TOKENIZED)
    assert clean(document, Cleaning(min_characters=1)) == ("", "unknown_words")
    assert clean(Document("a", "In HTML <unk> is no tag."), Cleaning(min_characters=1))[1] == ""


def test_what_is_no_wikitext_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("A river.\n")
    with pytest.raises(UserError, match="does not begin with a title"):
        documents(tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "huggingface"])
def test_rows_that_are_lines_of_wikitext_are_refused(tmp_path, kind):
    """As the hub has it: every document would be one line, and none would have a next sentence."""
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"text": f"{line}\n"}) for line in ARTICLES.split("\n")))
    with pytest.raises(UserError, match=r"a title of WikiText as a row.*sources\.wiki\.kind=wikitext"):
        documents(tmp_path, kind, dataset=str(tmp_path))
