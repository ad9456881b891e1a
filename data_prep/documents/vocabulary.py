"""The WordPiece vocabulary: train one on the corpus, and put one in its place (between stations 1 and 2).

Training gives the same file on every run, which `tokenizers` alone does not promise: it numbers the alphabet in the
order of a randomly seeded hash table, and ties between merges are broken by those numbers. So the alphabet is chosen
and numbered here, before the library counts pairs.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

from bert_lamb.outputs.atomic import temporary_of
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.shards.manifest import Vocabulary
from data_prep.documents.vocabulary_file import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK, read_entries

MAX_ALPHABET_CHARACTERS = 1_000  # rarer characters become [UNK]; the same limit as in tokenizers
MIN_PAIR_COUNT = 2  # merges seen less often are not made
CONTINUATION = "##"


def put_in_place(path: Path, entries: Iterable[str], *, scratch_dir: Path) -> None:
    """Write a vocab.txt, one entry a line, in scratch_dir and rename it: who finds the file finds all of it."""
    temporary = temporary_of(scratch_dir / path.name)
    temporary.write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    temporary.replace(path)


def describe(path: Path, *, is_lowercase: bool) -> Vocabulary:
    """The manifest's record of a vocabulary file."""
    entries = read_entries(path)
    return Vocabulary(
        file=path.name,
        sha256=file_sha256(path),
        size=len(entries),
        is_lowercase=is_lowercase,
        pad_id=entries.index(PAD),
        unk_id=entries.index(UNK),
        cls_id=entries.index(CLS),
        sep_id=entries.index(SEP),
        mask_id=entries.index(MASK),
    )


def count_characters(text: str, *, normalizer: Normalizer) -> Counter[str]:
    """How often each character stands in the normalized text, white space left out."""
    counts = Counter(normalizer.normalize_str(text))
    return Counter({character: count for character, count in counts.items() if not character.isspace()})


def train_entries(
    texts: Iterable[str], character_counts: Counter[str], *, size: int, normalizer: Normalizer
) -> list[str]:
    """Learn at most `size` entries, the five special tokens among them; fewer if the texts hold fewer pairs.

    character_counts: the sum of `count_characters` over the same texts.
    """
    by_frequency = sorted(character_counts, key=lambda character: (-character_counts[character], character))
    room = max(0, size - len(SPECIAL_TOKENS)) // 2  # each character takes two entries, "x" and "##x"
    alphabet = sorted(by_frequency[: min(MAX_ALPHABET_CHARACTERS, room)])
    numbered_first = [*SPECIAL_TOKENS, *alphabet, *(CONTINUATION + character for character in alphabet)]
    trainer = WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_PAIR_COUNT,
        special_tokens=numbered_first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer = Tokenizer(WordPiece(unk_token=UNK))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, BertPreTokenizer()
    tokenizer.train_from_iterator(texts, trainer)
    numbers = tokenizer.get_vocab(with_added_tokens=False)
    return sorted(numbers, key=numbers.__getitem__)
