"""Where the result differs from what was asked for, as lines of warning (after station 4).

Shares that are configured are probabilities, and some corpora cannot give them: one document has no other to take a
random second segment from. And text gets lost on its way into instances. Neither stops the work; neither is silent.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bert_lamb.shards.manifest import NEXT_SENTENCE, NO_SENTENCE_TASK, TRIMMED, InstanceSet, Manifest, TextRecord
from bert_lamb.shards.reader import open_shard
from data_prep.card.card import LEFT_OUT_TEXTS, percent
from data_prep.documents.selection import Chosen
from data_prep.documents.vocabulary_fit import MAX_SHARE_UNKNOWN
from data_prep.instances.cutting import key_of
from data_prep.instances.make import instance_settings_of
from data_prep.instances.sentence_tasks import draw_target
from data_prep.settings import Settings

MAX_SHARE_LEFT_OUT = 0.02  # of the text, before it is warned of; what is trimmed from pairs does not count
MAX_SHARE_TRIMMED = 0.20  # BERT's own procedure trims 7 % of Wikipedia's text at length 128 and more of novels
MAX_TOKENS_OF_SHARD = 1 << 20  # that are looked at for [UNK]
TOLERANCE = 0.1  # of a share of the instances, besides what chance explains
NUM_STANDARD_DEVIATIONS = 4.0  # of what chance explains
MAX_DEVIATION_OF_WEIGHT = 0.5  # of it
DOMINANT_SHARE = 0.1  # of a corpus's tokens: a document this large can shift shares that are drawn once a document


def deviations(manifest: Manifest, chosen: Chosen, settings: Settings) -> list[str]:
    """A line for each; none where the shards are what the settings say."""
    return [
        *_text_left_out(manifest),
        *_random_next(manifest, settings),
        *_held_out(manifest, settings),
        *_short_sequences(chosen, settings),
        *_sources(manifest, chosen, settings),
    ]


def left_out_of_length(manifest: Manifest, max_seq_length: int) -> TextRecord:
    """The text that is in no instance of this length, of all splits together."""
    records = [found for found in manifest.text if found.max_seq_length == max_seq_length]
    reasons = dict.fromkeys(reason for found in records for reason in found.left_out)
    return TextRecord(
        max_seq_length=max_seq_length,
        split="",
        num_tokens=sum(found.num_tokens for found in records),
        left_out={reason: sum(found.left_out.get(reason, 0) for found in records) for reason in reasons},
    )


def _text_left_out(manifest: Manifest) -> Iterator[str]:
    parts = []
    for max_seq_length in sorted({found.max_seq_length for found in manifest.text}):
        found = left_out_of_length(manifest, max_seq_length)
        num_trimmed = found.left_out.get(TRIMMED, 0)
        is_too_much = found.num_left_out - num_trimmed > MAX_SHARE_LEFT_OUT * found.num_tokens
        if is_too_much or num_trimmed > MAX_SHARE_TRIMMED * found.num_tokens:
            reasons = ", ".join(
                f"{percent(count, found.num_tokens)} {LEFT_OUT_TEXTS[reason]}"
                for reason, count in found.left_out.items()
            )
            parts.append(f"{percent(found.num_left_out, found.num_tokens)} at length {max_seq_length} ({reasons})")
    if parts:
        yield (
            f"of the kept text, these shares are in no instance: {'; '.join(parts)}; "
            "longer max_seq_lengths leave out less, sentence_task=none nothing"
        )


def _random_next(manifest: Manifest, settings: Settings) -> Iterator[str]:
    if manifest.sentence_task != NEXT_SENTENCE:
        return
    probability = settings.random_next_prob
    alone = [found for found in manifest.instance_sets if _num_documents(manifest, found) == 1]
    if probability > 0 and alone:
        yield (
            f"no random next in {', '.join(map(_name, alone))}, where random_next_prob is {probability:g}: it has one "
            "document, and a random second segment comes from another; cut the text into documents, or choose another "
            "sentence_task"
        )
    for found in manifest.instance_sets:
        share = found.num_true_labels / found.num_instances
        by_chance = math.sqrt(probability * (1 - probability) / found.num_instances)
        if found not in alone and abs(share - probability) > TOLERANCE + NUM_STANDARD_DEVIATIONS * by_chance:
            yield (
                f"random next is {share:.3f} of {_name(found)}, where random_next_prob is {probability:g}: what is "
                "gathered is often one sentence alone, which always gets a random second segment"
            )


def _held_out(manifest: Manifest, settings: Settings) -> Iterator[str]:
    documents, proportion = manifest.documents, settings.heldout_proportion
    if not proportion:
        return
    asked = f"where heldout_proportion is {proportion:g}"
    if not documents.num_heldout:
        yield f"no document of {documents.num_train:,} is held out, {asked}: there is nothing to evaluate on"
        return
    lengths = sorted(set(settings.max_seq_lengths))
    made = {found.max_seq_length for found in manifest.instance_sets if found.split == "heldout"}
    if missing := [length for length in lengths if length not in made]:
        yield (
            f"the held-out documents ({documents.num_heldout:,}) give no instance of length "
            f"{', '.join(map(str, missing))}: they are too short"
        )
    num_tokens = {found.split: found.num_tokens for found in manifest.text}
    share = num_tokens.get("heldout", 0) / sum(num_tokens.values())
    if abs(share - proportion) > max(TOLERANCE / 2, min(2 * proportion, 1.5 * TOLERANCE)):
        yield (
            f"{100 * share:.1f} % of the tokens are held out, {asked}: it is a share of the documents, "
            f"and {documents.num_heldout:,} of {documents.num_heldout + documents.num_train:,} are held out"
        )


def _short_sequences(chosen: Chosen, settings: Settings) -> Iterator[str]:
    """Pairs draw once a document whether they are short: a very large document makes that one draw count."""
    if settings.sentence_task == NO_SENTENCE_TASK:
        return
    num_tokens = np.where(chosen.is_heldout | (chosen.num_copies == 0), 0, chosen.num_tokens)
    places = np.flatnonzero(num_tokens > DOMINANT_SHARE * num_tokens.sum())
    for of_length in instance_settings_of(settings):
        is_short = [
            draw_target(
                of_length.rng_of(key_of(int(chosen.number[place]), copy=0)),
                settings.short_seq_prob,
                of_length.max_num_tokens,
            )
            < of_length.max_num_tokens
            for place in places
        ]
        share = num_tokens[places[is_short]].sum() / num_tokens.sum() if any(is_short) else 0.0
        if share > settings.short_seq_prob + TOLERANCE:
            yield (
                f"{100 * share:.0f} % of the training text at length {of_length.max_seq_length} is in documents whose "
                f"instances are all short, where short_seq_prob is {settings.short_seq_prob:g}: it is drawn once a "
                "document, and these are very large; cut the text into documents, or choose another seed"
            )


def _sources(manifest: Manifest, chosen: Chosen, settings: Settings) -> Iterator[str]:
    for index, (source, record) in enumerate(zip(settings.sources, manifest.sources, strict=True)):
        if record.num_read and not record.num_kept:
            name = f"{source.name} (weight {source.weight:g})"
            yield f"none of the {record.num_read:,} documents of source {name} is used"
            continue
        is_offered = (chosen.source == index) & ~chosen.is_heldout & ((chosen.num_copies > 0) | chosen.is_thinned)
        mean = chosen.num_copies[is_offered].mean() if is_offered.any() else source.weight
        if abs(mean - source.weight) > MAX_DEVIATION_OF_WEIGHT * source.weight:
            yield (
                f"documents of source {source.name} are used {mean:.2f} times on average, where its weight is "
                f"{source.weight:g}: {is_offered.sum():,} are too few for it to come out"
            )


def unknown_tokens(directory: Path, manifest: Manifest) -> list[str]:
    """Where much of the shortest train set is [UNK], by the beginnings of its shards: a line that says so."""
    instance_set = min(manifest.instance_sets, key=lambda found: (found.split != "train", found.max_seq_length))
    num_tokens = num_unknown = 0
    for shard in instance_set.shards:
        ids = open_shard(directory, shard, manifest.vocabulary).input_ids[:MAX_TOKENS_OF_SHARD]
        num_tokens += len(ids) - int(np.isin(ids, [manifest.vocabulary.cls_id, manifest.vocabulary.sep_id]).sum())
        num_unknown += int((ids == manifest.vocabulary.unk_id).sum())
    if num_unknown <= MAX_SHARE_UNKNOWN * num_tokens:
        return []
    return [f"[UNK] for {percent(num_unknown, num_tokens)} of the tokens of {_name(instance_set)}; see the data card"]


def _num_documents(manifest: Manifest, found: InstanceSet) -> int:
    return manifest.documents.num_train if found.split == "train" else manifest.documents.num_heldout


def _name(found: InstanceSet) -> str:
    return f"{found.split} {found.max_seq_length}"
