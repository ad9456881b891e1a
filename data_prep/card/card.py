"""The data card: README.md and its plots in a folder of shards, for whoever finds the folder (after station 4).

Made from the manifest and the shards alone, one shard mapped at a time. The same folder gives the same bytes: no date,
no host, no path but those of the preparation's configuration. Letters: L tokens at most in an instance, V entries of
the vocabulary.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bert_lamb.shards.inspect import LABELS, Entries, instance_text, read_entries
from bert_lamb.shards.manifest import SPLITS, Manifest
from bert_lamb.shards.reader import open_shard
from data_prep.card.counts import MAX_COUNTED_TOKENS, Frequencies, count_entries, count_lengths
from data_prep.card.figures import LENGTH_BINS_IN_TABLE, SPLIT_NAMES, draw_frequencies, draw_lengths

CARD_FILE = "README.md"
FIGURES_DIR = "figures"
NUM_FREQUENT = 30  # entries listed
SAMPLE_LINE_WIDTH = 96  # characters
TASK_TEXTS = {
    "next_sentence": (
        "next-sentence prediction (Devlin et al. 2019)",
        "an instance is `[CLS] A [SEP] B [SEP]`",
        "B was taken from another document",
    ),
    "sentence_order": (
        "sentence order (ALBERT, Lan et al. 2020)",
        "an instance is `[CLS] A [SEP] B [SEP]`, A and B neighbours in one document",
        "A and B are swapped",
    ),
    "none": (
        "none, full sentences only (RoBERTa, Liu et al. 2019)",
        "an instance is `[CLS] text [SEP] text [SEP] ...`, of one or more documents, each closed by `[SEP]`",
        "never",
    ),
}


LEFT_OUT_TEXTS = {
    "trimmed": "trimmed from pairs longer than an instance",
    "last_sentence": "last sentences without a second segment",
    "single_sentence": "documents of a single sentence",
}


def write_card(directory: Path, manifest: Manifest) -> None:
    """Write README.md and figures/*.svg into the folder; the manifest itself need not be written yet.

    Reads the list offsets of every shard, and the tokens of at most MAX_COUNTED_TOKENS. Raises UserError where a shard
    is not what the manifest says.
    """
    entries = read_entries(directory, manifest.vocabulary)
    length_counts = {
        (found.max_seq_length, found.split): count_lengths(directory, manifest, found)
        for found in manifest.instance_sets
    }
    frequencies = count_entries(directory, manifest, entries, max_tokens=MAX_COUNTED_TOKENS)
    figures = directory / FIGURES_DIR
    figures.mkdir(exist_ok=True)
    lengths = sorted({found.max_seq_length for found in manifest.instance_sets})
    for max_seq_length in lengths:
        of_splits = {
            split: length_counts[max_seq_length, split] for split in SPLITS if (max_seq_length, split) in length_counts
        }
        draw_lengths(figures / f"lengths-seq{max_seq_length}.svg", of_splits)
    draw_frequencies(figures / "vocabulary.svg", frequencies.text_counts)
    sections = [
        front_matter(manifest, lengths),
        introduction(manifest),
        reading(manifest),
        sources(manifest),
        instance_sets(manifest),
        text_left_out(manifest),
        length_tables(lengths, length_counts),
        samples(directory, manifest, entries),
        vocabulary(manifest, frequencies, entries),
        preparation(manifest),
    ]
    (directory / CARD_FILE).write_text("\n".join(sections), encoding="utf-8")


def front_matter(manifest: Manifest, lengths: Sequence[int]) -> str:
    """What the Hugging Face hub and `datasets` read: a configuration a length, a split a file pattern."""
    given = list(dict.fromkeys(source.license for source in manifest.sources if source.license))
    identifiers = [text if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text) else "other" for text in given]
    fields = {
        "pretty_name": "BERT pretraining shards: " + ", ".join(source.name for source in manifest.sources),
        "license": list(dict.fromkeys(identifiers)) or ["unknown"],  # the hub knows licences by identifiers
        **({"license_details": "; ".join(given)} if "other" in identifiers else {}),
        "task_categories": ["fill-mask"],
        "configs": [
            {
                "config_name": f"seq{max_seq_length}",
                "data_files": [
                    {"split": found.split, "path": f"seq{max_seq_length}/{found.split}-*.arrow"}
                    for found in manifest.instance_sets
                    if found.max_seq_length == max_seq_length
                ],
            }
            for max_seq_length in lengths
        ],
    }
    return f"---\n{as_yaml(fields)}---\n"


def introduction(manifest: Manifest) -> str:
    task, form, label = TASK_TEXTS[manifest.sentence_task]
    is_of_several_lengths = len({found.max_seq_length for found in manifest.instance_sets}) > 1
    case = "lower case without accents" if manifest.vocabulary.is_lowercase else "upper and lower case"
    rows = [
        ("`input_ids`", "the whole instance, as ids of `vocab.txt` (an entry a line, the first is 0)"),
        ("`segment_a_length`", "tokens of token type 0, which come first; the rest is of type 1"),
        ("`sentence_label`", f"true: {label}"),
        ("`document`", "a number for the document that the instance begins with"),
    ]
    return "\n".join(
        [
            "# Shards for BERT pretraining",
            "",
            "Running text cut into instances for masked language modelling, as WordPiece ids: unmasked, so that masks",
            f"are drawn while training, and without padding. The text is in {case}. Made with `bert-lamb prepare`.",
            "",
            f"- Sentence task: {task}; {form}.",
            "- Splits are by document: no text of a held-out document is in the train split, at any length.",
            *(["- Each length holds the same documents, cut anew."] if is_of_several_lengths else []),
            "",
            table(("column", "meaning"), rows),
            "`manifest.json` has the counts of documents and instances, and the sha256 of the vocabulary and of every",
            "shard. `bert-lamb verify shards_dir=.` checks them, `bert-lamb inspect shards_dir=.` shows instances as",
            "text.",
            "",
        ]
    )


def reading(manifest: Manifest) -> str:
    """Three ways to read a set; a test runs them."""
    first = manifest.instance_sets[0]
    folder = f"seq{first.max_seq_length}"
    return f"""\
## Reading it

In this folder, with `datasets`:

```python
from pathlib import Path

from datasets import load_dataset

folder = Path(".").resolve()  # load_dataset takes its name from the path, which "." has not
dataset = load_dataset(str(folder), "{folder}", split="{first.split}")
print(dataset[0])
```

with pandas, one shard:

```python
import pandas as pd

frame = pd.read_feather("{first.shards[0].file}")
entries = open("{manifest.vocabulary.file}", encoding="utf-8").read().split("\\n")
print(" ".join(entries[number] for number in frame["input_ids"][0]))
```

with pyarrow, memory-mapped:

```python
from glob import glob

import pyarrow as pa

files = sorted(glob("{folder}/{first.split}-*.arrow"))
table = pa.concat_tables(pa.ipc.open_file(pa.memory_map(file)).read_all() for file in files)
print(table.num_rows, table.schema)
```
"""


def sources(manifest: Manifest) -> str:
    documents = manifest.documents
    of_sources = [
        (code(source.name), cell(source.license) or "not given", f"{source.num_read:,}", f"{source.num_kept:,}")
        for source in manifest.sources
    ]
    whereabouts = [
        ("read", documents.num_read),
        ("kept for training", documents.num_train),
        ("held out", documents.num_heldout),
        *((f"dropped: {cell(reason.replace('_', ' '))}", count) for reason, count in documents.dropped.items()),
    ]
    return "\n".join(
        [
            "## Sources and documents",
            "",
            "Licences as they were given to the preparation.",
            "",
            table(("source", "licence", "documents read", "documents kept"), of_sources, "llrr"),
            "Where the documents went:",
            "",
            table(
                ("documents", "number", "share"),
                [(name, f"{count:,}", percent(count, documents.num_read)) for name, count in whereabouts],
                "lrr",
            ),
        ]
    )


def instance_sets(manifest: Manifest) -> str:
    """A row a set; with a sentence task, the share of its true labels by their name."""
    labels = LABELS.get(manifest.sentence_task)
    header = ["length", "split", "instances", "tokens", "fill ratio", *([labels[1][0]] if labels else [])]
    rows = [
        [
            f"{found.max_seq_length}",
            SPLIT_NAMES[found.split],
            f"{found.num_instances:,}",
            f"{found.num_tokens:,}",
            percent(found.num_tokens, found.num_instances * found.max_seq_length),
            *([percent(found.num_true_labels, found.num_instances)] if labels else []),
            f"{len(found.shards):,}",
            megabytes(sum(shard.num_bytes for shard in found.shards)),
        ]
        for found in manifest.instance_sets
    ]
    explained = ["Lengths and tokens count the special tokens. Fill ratio: the mean length over the greatest."]
    if labels:
        explained = [*explained, f"{labels[1][0].capitalize()}: the instances in which {labels[1][1]}."]
    return "\n".join(
        ["## Instances", "", table([*header, "shards", "MB"], rows, "rl" + "r" * (len(header))), *explained, ""]
    )


def text_left_out(manifest: Manifest) -> str:
    """A row a length and split: which share of the text is in no instance, and why; empty where it was not counted."""
    if not manifest.text:
        return ""
    rows = [
        [
            f"{found.max_seq_length}",
            SPLIT_NAMES[found.split],
            f"{found.num_tokens:,}",
            f"{found.num_left_out:,}",
            percent(found.num_left_out, found.num_tokens),
            *(percent(found.left_out.get(reason, 0), found.num_tokens) for reason in LEFT_OUT_TEXTS),
        ]
        for found in manifest.text
    ]
    header = ["length", "split", "tokens of the text", "left out", "share", *LEFT_OUT_TEXTS.values()]
    return "\n".join(
        [
            "## Text left out",
            "",
            "Tokens of the documents kept, each document once, and those of them that are in no instance.",
            "",
            table(header, rows, "rl" + "r" * (len(header) - 2)),
        ]
    )


def length_tables(lengths: Sequence[int], counts: dict[tuple[int, str], np.ndarray]) -> str:
    """A plot and a coarse table for each length."""
    parts = ["## Lengths of the instances", ""]
    for max_seq_length in lengths:
        splits = [split for split in SPLITS if (max_seq_length, split) in counts]
        edges = [1 + max_seq_length * number // LENGTH_BINS_IN_TABLE for number in range(LENGTH_BINS_IN_TABLE)]
        bins = [*zip(edges, [*edges[1:], max_seq_length], strict=True), (max_seq_length, max_seq_length + 1)]
        rows = []
        for start, stop in (one for one in bins if one[0] < one[1]):
            of_bin = [int(counts[max_seq_length, split][start:stop].sum()) for split in splits]
            totals = [int(counts[max_seq_length, split].sum()) for split in splits]
            name = f"{start} to {stop - 1}" if stop - start > 1 else f"{start}"
            shares = [f"{count:,} ({percent(count, total)})" for count, total in zip(of_bin, totals, strict=True)]
            rows.append([name, *shares])
        parts += [
            f"### Length {max_seq_length}",
            "",
            f"![Share of the instances of length {max_seq_length} by their number of tokens]"
            f"({FIGURES_DIR}/lengths-seq{max_seq_length}.svg)",
            "",
            table(["tokens", *(f"{SPLIT_NAMES[split]} instances" for split in splits)], rows, "l" + "r" * len(splits)),
        ]
    return "\n".join(parts)


def samples(directory: Path, manifest: Manifest, entries: Entries) -> str:
    """Rows of the first shard of each train set as text: of the shortest the first of each label, else the first."""
    parts = ["## Sample rows", "", "The first of the train sets. Pieces are joined to words.", ""]
    if manifest.sentence_task in LABELS:
        parts[2] = "The first of the train sets, and the first with the other label. Pieces are joined to words."
    train_sets = sorted(
        (found for found in manifest.instance_sets if found.split == "train"), key=lambda found: found.max_seq_length
    )
    for instance_set in train_sets:
        columns = open_shard(directory, instance_set.shards[0], manifest.vocabulary)
        rows = sorted(np.unique(columns.sentence_labels, return_index=True)[1].tolist())
        for row in rows if instance_set is train_sets[0] else rows[:1]:
            text = instance_text(
                columns, row, entries, sentence_task=manifest.sentence_task, line_width=SAMPLE_LINE_WIDTH
            )
            parts += [f"Length {instance_set.max_seq_length}, instance {row}:", "", "```text", text, "```", ""]
    return "\n".join(parts)


def vocabulary(manifest: Manifest, frequencies: Frequencies, entries: Entries) -> str:
    found, counts = manifest.vocabulary, frequencies.text_counts
    counted, total = frequencies.num_tokens_counted, int(counts.sum())
    counted_set = frequencies.instance_set
    extent = f"all {counted:,} tokens"
    if counted < counted_set.num_tokens:
        of_each = f"the first {frequencies.tokens_per_shard:,} of each shard"
        extent = f"{counted:,} of {counted_set.num_tokens:,} tokens ({of_each})"
    by_frequency = np.lexsort((np.arange(len(counts)), -counts))[:NUM_FREQUENT].tolist()
    cells = [
        (f"{rank}", code(entries.texts[number]), percent(int(counts[number]), total))
        for rank, number in enumerate(by_frequency, 1)
        if counts[number]
    ]
    num_rows = -(-len(cells) // 3)
    columns = [cells[start : start + num_rows] for start in range(0, len(cells), num_rows)] if cells else []
    rows = [
        [text for column in columns for text in (column[number] if number < len(column) else ("", "", ""))]
        for number in range(num_rows)
    ]
    is_continuation = np.array([text.startswith("##") for text in entries.texts])
    case = "lower case, accents stripped" if found.is_lowercase else "case and accents kept"
    specials = (found.pad_id, found.unk_id, found.cls_id, found.sep_id, found.mask_id)
    return "\n".join(
        [
            "## Vocabulary",
            "",
            f"`{found.file}`: {found.size:,} WordPiece entries, {case}. sha256 `{found.sha256}`.",
            "Special tokens: " + ", ".join(f"{code(entries.texts[number])} {number}" for number in specials) + ".",
            "",
            f"Counted over {extent} of the {SPLIT_NAMES[counted_set.split]} set of length"
            f" {counted_set.max_seq_length}, without `[CLS]` and `[SEP]`:",
            "",
            f"- `[UNK]` is {percent(int(counts[found.unk_id]), total)} of the tokens;",
            f"- {percent(int(counts[is_continuation].sum()), total)} continue a word (`##`);",
            f"- {int((counts > 0).sum()):,} of {found.size:,} entries occur.",
            "",
            f"![Occurrences of the entries of the vocabulary by their rank]({FIGURES_DIR}/vocabulary.svg)",
            "",
            "The most frequent entries, and their share of the tokens:",
            "",
            table(["rank", "entry", "share"] * len(columns), rows, "rlr" * len(columns)),
        ]
    )


def preparation(manifest: Manifest) -> str:
    versions = as_yaml(manifest.preparation.versions)
    return "\n".join(
        [
            "## Preparation",
            "",
            "The configuration, on which the bytes depend together with the text:",
            "",
            f"```yaml\n{as_yaml(manifest.preparation.config)}```",
            "",
            f"Format: {manifest.format}, version {manifest.format_version}. Versions:",
            "",
            f"```yaml\n{versions}```",
            "",
        ]
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], alignment: str = "") -> str:
    """A Markdown table and an empty line; alignment: l or r for each column."""
    rules = {"l": ":--", "r": "--:"}
    lines = [header, [rules[side] for side in alignment or "l" * len(header)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(text: str) -> str:
    """Text that neither ends a table's cell nor its row."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """Text as code in a table's cell; the fence is longer than any run of backticks within."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {cell(text)} {fence}" if longest else f"`{cell(text)}`"


def percent(part: int, whole: int) -> str:
    """A share with as many decimals as show it: 12.3 %, 0.40 %, 0.045 %."""
    if not part:
        return "0 %"
    share = 100 * part / whole
    decimals = ".1f" if share >= 1 else ".2f" if share >= 0.1 else ".2g"
    return f"{share:{decimals}} %"


def megabytes(num_bytes: int) -> str:
    """12.3, 0.045."""
    return f"{num_bytes / 1e6:,.1f}" if num_bytes >= 1e6 else f"{num_bytes / 1e6:.2g}"


def as_yaml(plain: Any) -> str:
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return text
