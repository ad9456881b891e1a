"""The data card: README.md and its plots in a folder of shards, for anyone who finds the folder (after station 4).

Made from the manifest and the shards alone, one shard mapped at a time. The same folder gives the same bytes: no date,
no host, no path but those of the preparation's configuration.

counts.py   the shards -> lengths of their instances, frequencies of their tokens
content.py  manifest and counts -> the values that the card states
card.md.j2  the values -> README.md
figures.py  the counts -> plots as SVG
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bert_lamb.shards.inspect import read_entries
from bert_lamb.shards.manifest import SPLITS, Manifest
from data_prep.card.content import card_content
from data_prep.card.counts import MAX_COUNTED_TOKENS, count_entries, count_lengths
from data_prep.card.figures import SPLIT_NAMES, draw_frequencies, draw_lengths

CARD_FILE = "README.md"
TEMPLATE = Path(__file__).with_name("card.md.j2")
FIGURES_DIR = "figures"
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
    for max_seq_length in sorted({found.max_seq_length for found in manifest.instance_sets}):
        of_splits = {
            split: length_counts[max_seq_length, split] for split in SPLITS if (max_seq_length, split) in length_counts
        }
        draw_lengths(figures / f"lengths-seq{max_seq_length}.svg", of_splits)
    draw_frequencies(figures / "vocabulary.svg", frequencies.text_counts)
    text = fill(card_content(directory, manifest, entries, length_counts, frequencies))
    (directory / CARD_FILE).write_text(text, encoding="utf-8")


def fill(values: dict[str, Any]) -> str:
    """The text of the card. values: as card_content gives them."""
    from bert_lamb.outputs.templates import (
        render,
    )  # here, since worker processes may import this room, and fill nothing

    names = {"figures_dir": FIGURES_DIR, "left_out_texts": LEFT_OUT_TEXTS, "split_names": SPLIT_NAMES}
    filters: dict[str, Callable[..., str]] = {
        "cell": cell,
        "code": code,
        "number": "{:,}".format,
        "percent": percent,
        "megabytes": megabytes,
        "yaml": as_yaml,
    }
    # Markdown: text from outside goes through cell, code or yaml.
    return render(TEMPLATE, {**values, **names}, is_html=False, filters=filters)


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
    """Without the last line's end, which the template has."""
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return text.removesuffix("\n")
