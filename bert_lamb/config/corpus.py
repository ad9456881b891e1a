"""`prepare`, `merge`, `vocab` and `demo-data`: raw text, and what instances are made of it."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, IfExists, check_if_positive, check_if_share, check_names, check_seed

MAX_SHARD_TOKENS = 2**31 - 1  # as in shards/schema.py, which this module does not import


class SourceKind(Enum):
    """The forms of raw text that `prepare` reads."""

    text = "text"  # plain text; one document a file, or blank lines between documents
    markdown = "markdown"  # a file is a document, such as a book
    jsonl = "jsonl"  # one JSON object a line (.jsonl, also .gz, .bz2, .xz, .zst) with a text column
    parquet = "parquet"  # Parquet files with a text column
    arrow = "arrow"  # Arrow IPC files or streams with a text column, as `datasets` writes
    wikiextractor = "wikiextractor"  # <doc id= url= title=> ... </doc>
    mediawiki = "mediawiki"  # MediaWiki XML dump, .xml or .xml.bz2
    wikitext = "wikitext"  # the corpora wikitext-2-raw and wikitext-103-raw: ` = Title = `, `@-@`, spaced punctuation
    huggingface = "huggingface"  # a dataset by name, read through `datasets`


class DocumentBoundary(Enum):
    """Where one document ends in a plain text file."""

    file = "file"  # a file is a document
    blank_line = "blank_line"  # an empty line ends a document, as in Google's create_pretraining_data.py


class UnicodeNormalization(Enum):
    none = "none"  # as it comes; BERT's tokenizer takes accents off for an uncased vocabulary all the same
    NFC = "NFC"  # composed characters
    NFKC = "NFKC"  # and compatibility forms (ligatures, full-width letters) replaced


class Duplicates(Enum):
    """Documents whose plain text stood in the corpus before."""

    keep = "keep"
    exact = "exact"  # drop documents with the same plain text
    near = "near"  # and those that resemble an earlier one (needs the extra near-duplicates)


class SentenceTask(Enum):
    """What is asked about the two segments of an instance."""

    next_sentence = "next_sentence"  # BERT: does B follow A, or is it from another document?
    sentence_order = "sentence_order"  # ALBERT: does B follow A, or are they swapped?
    none = "none"  # RoBERTa: no segments, runs of full sentences


@dataclass
class SourceConfig:
    kind: SourceKind = MISSING
    path: str = ""  # file, folder or glob pattern; every kind but huggingface
    document_boundary: DocumentBoundary = DocumentBoundary.blank_line  # text only
    text_column: str = "text"  # jsonl, parquet, arrow, huggingface
    dataset: str = ""  # huggingface: name, such as wikimedia/wikipedia
    dataset_config: str = ""  # huggingface: configuration, such as 20231101.en
    dataset_split: str = "train"  # huggingface
    max_documents: int | None = None  # stop after this many documents of this source
    min_documents: int = 1  # refuse a source that gives fewer
    weight: float = 1.0  # how often its training documents are used on average; 0.5: half of them, 2: each twice
    license: str = ""  # free text, kept in the manifest


@dataclass
class CleaningConfig:
    """Which documents, and what of them, are kept. Every document left out is counted under its reason."""

    min_characters: int = 50  # of plain text; shorter documents are dropped
    min_words: int = 0  # separated by white space; documents of fewer are dropped
    drop_stubs: bool = False  # disambiguation pages and short texts that call themselves stubs
    drop_boilerplate: bool = False  # Project Gutenberg's header and licence, lines that stand around texts on the web
    unicode_normalization: UnicodeNormalization = UnicodeNormalization.none
    duplicates: Duplicates = Duplicates.keep
    near_duplicate_threshold: float = 0.8  # Jaccard similarity of the sets of five-word runs


@dataclass
class VocabularyConfig:
    file: str | None = None  # a vocab.txt, one WordPiece a line; None trains one on the corpus
    train_size: int = 30_522  # number of entries when one is trained
    is_lowercase: bool = True  # lower-case and strip accents, as bert-*-uncased


@dataclass
class CorpusConfig:
    """Raw text and what instances are made of it; the same for `prepare`, `merge` and `vocab`."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)  # by name; read in this order
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    max_seq_lengths: list[int] = field(default_factory=lambda: [128, 512])  # tokens, [CLS] and [SEP] included
    sentence_task: SentenceTask = SentenceTask.next_sentence
    short_seq_prob: float = 0.1  # share of documents whose instances have a random shorter target length
    random_next_prob: float = 0.5  # next_sentence: share of pairs whose second half comes from another document
    heldout_proportion: float = 0.005  # share of documents kept for evaluation, chosen by a hash of the document
    group_tokens: int = 1_000_000  # documents are grouped up to this size; random second halves come from the group
    instances_per_shard: int = 65_536  # upper bound; shards of one set differ by at most one instance
    seed: int = 12_345
    partition_bytes: int = 4_000_000  # input bytes in a unit of work. Does not change the bytes written
    num_workers: int | None = None  # processes; None: one for each core. Does not change the bytes written


def check_corpus(config: CorpusConfig) -> Complaints:
    complaints = Complaints()
    check_seed(complaints, config.seed)
    complaints.unless(
        bool(config.sources),
        "sources",
        "{}",
        "at least one source: corpus=NAME, or sources.NAME.kind=KIND sources.NAME.path=PATH",
    )
    check_names(complaints, "sources", config.sources)
    for name, source in config.sources.items():
        if source.kind is SourceKind.huggingface:
            complaints.unless(bool(source.dataset), f"sources.{name}.dataset", "''", "the name of a dataset")
        else:
            complaints.unless(bool(source.path), f"sources.{name}.path", "''", "a file, folder or glob pattern")
        check_if_positive(complaints, f"sources.{name}.", source, "max_documents", "weight")
        complaints.unless(source.min_documents >= 0, f"sources.{name}.min_documents", source.min_documents, "0 or more")
    complaints.unless(bool(config.max_seq_lengths), "max_seq_lengths", "[]", "at least one length")
    for length in config.max_seq_lengths:
        complaints.unless(8 <= length <= 65_535, "max_seq_lengths", length, "lengths in 8..65535")
    check_if_share(complaints, "", config, "short_seq_prob", "random_next_prob", "heldout_proportion")
    check_if_positive(complaints, "", config, "group_tokens", "partition_bytes", "instances_per_shard", "num_workers")
    longest = max(config.max_seq_lengths, default=1)
    complaints.unless(
        config.instances_per_shard * longest <= MAX_SHARD_TOKENS,
        "instances_per_shard",
        config.instances_per_shard,
        f"at most {MAX_SHARD_TOKENS // max(longest, 1)} at length {longest}: a shard holds 2^31 - 1 tokens",
    )
    check_if_share(complaints, "cleaning.", config.cleaning, "near_duplicate_threshold")
    for bound in ("min_characters", "min_words"):
        value = getattr(config.cleaning, bound)
        complaints.unless(value >= 0, f"cleaning.{bound}", value, "0 or more")
    complaints.unless(
        config.vocabulary.train_size >= 100, "vocabulary.train_size", config.vocabulary.train_size, "at least 100"
    )
    return complaints


@dataclass
class PrepareConfig(CorpusConfig):
    """`bert-lamb prepare`: raw text -> Arrow shards and manifest."""

    output_dir: str = MISSING
    share: str | None = None  # INDEX/COUNT: only this share of the partitions, to be merged later; None: everything
    if_exists: IfExists = IfExists.refuse


def check_prepare(config: PrepareConfig) -> Complaints:
    complaints = check_corpus(config)
    if config.share is not None:
        index, _, count = config.share.partition("/")
        is_share = index.isdecimal() and count.isdecimal() and int(index) < int(count)
        complaints.unless(is_share, "share", config.share, "INDEX/COUNT with INDEX from 0 to COUNT - 1, such as 0/4")
    return complaints


@dataclass
class MergeConfig(CorpusConfig):
    """`bert-lamb merge`: what the shares of `prepare` have left -> Arrow shards and manifest."""

    output_dir: str = MISSING


@dataclass
class VocabConfig(CorpusConfig):
    """`bert-lamb vocab`: train a WordPiece vocabulary on the corpus."""

    output_file: str = MISSING  # a vocab.txt
    if_exists: IfExists = IfExists.refuse


@dataclass
class DemoDataConfig:
    """`bert-lamb demo-data`: fetch the embedded default corpus and make its question-answering set."""

    output_dir: str = MISSING
    if_exists: IfExists = IfExists.resume
