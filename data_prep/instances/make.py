"""Stations 3 and 4 as the main process drives them: the documents that are used -> instances -> equal shards."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from bert_lamb.progress import track
from bert_lamb.shards.manifest import LEFT_OUT_REASONS, SPLITS, InstanceSet, TextRecord, Vocabulary
from bert_lamb.shards.writer import equal_shard_sizes, instance_set_of
from data_prep.documents.selection import Chosen
from data_prep.documents.store import BlockFiles
from data_prep.documents.vocabulary import CONTINUATION
from data_prep.documents.vocabulary_file import read_entries
from data_prep.instances.copies import count_left_out_of_all_copies
from data_prep.instances.cutting import (
    CuttingSettings,
    LaidDown,
    ShardPlan,
    lay_down_instances,
    make_shard,
    plan_shards,
)
from data_prep.instances.groups import Group, make_groups
from data_prep.instances.sentence_tasks import InstanceSettings
from data_prep.pool import Pool
from data_prep.settings import Settings
from data_prep.workspace import Workspace


def instance_settings_of(settings: Settings) -> list[InstanceSettings]:
    """One for each length, the shortest first."""
    return [
        InstanceSettings(
            settings.sentence_task, length, settings.short_seq_prob, settings.random_next_prob, settings.seed
        )
        for length in sorted(set(settings.max_seq_lengths))
    ]


def make_instance_sets(
    chosen: Chosen, vocabulary: Vocabulary, workspace: Workspace, settings: Settings, pool: Pool
) -> tuple[list[InstanceSet], list[TextRecord]]:
    """Write the shards of every length and split that has an instance; what is in them, and what text is not."""
    entries = read_entries(workspace.vocabulary_path)
    cutting = CuttingSettings(
        directory=workspace.directory,
        instances_dir=workspace.instances_dir,
        vocabulary_size=vocabulary.size,
        cls_id=vocabulary.cls_id,
        sep_id=vocabulary.sep_id,
        is_continuation=np.array([entry.startswith(CONTINUATION) for entry in entries]),
    )
    of_lengths = instance_settings_of(settings)
    lengths = [found.max_seq_length for found in of_lengths]
    groups = make_groups(chosen, group_tokens=settings.group_tokens)
    tasks = (partial(lay_down_instances, group, of_lengths, cutting) for group in groups)
    laid_down = list(track(pool.run(tasks), "making instances", total=len(groups), unit="groups"))

    plans: dict[tuple[int, str], list[ShardPlan]] = {}
    for length in lengths:
        for split in SPLITS:
            of_split = [(group, gave) for group, gave in zip(groups, laid_down, strict=True) if group.split == split]
            num_instances = sum(gave[length].num_instances for _, gave in of_split)
            if num_instances:
                sizes = equal_shard_sizes(num_instances, settings.instances_per_shard)
                plans[length, split] = list(plan_shards(of_split, sizes, max_seq_length=length))
    longest_first = list(reversed(plans))  # the last tasks should be short ones: nobody waits long for them
    to_write = [partial(make_shard, plan, cutting) for key in longest_first for plan in plans[key]]
    records = track(pool.run(to_write), "writing shards", total=len(to_write), unit="shards")
    records_of = {key: [next(records) for _ in plans[key]] for key in longest_first}
    text = _text_records(chosen, groups, laid_down, lengths, cutting, pool)
    return [instance_set_of(records_of[key], *key) for key in plans], text


def _text_records(
    chosen: Chosen,
    groups: Sequence[Group],
    laid_down: Sequence[dict[int, LaidDown]],
    lengths: Sequence[int],
    cutting: CuttingSettings,
    pool: Pool,
) -> list[TextRecord]:
    """How much of the text of each split is in an instance, for each length; a document counts once however often used.

    A first copy counts what it leaves out itself, unless some of its documents are used again.
    """
    first_copies = [(group, gave) for group, gave in zip(groups, laid_down, strict=True) if group.copy == 0]
    shared = [group for group, _ in first_copies if group.has_other_copies]
    later = _groups_of_later_copies(groups)

    def other_copies_of(group: Group) -> list[Group]:
        others = [other for block, _ in group.members for other in later.get((group.split, block), [])]
        return list({other.number: other for other in others}.values())

    tasks = (partial(count_left_out_of_all_copies, group, other_copies_of(group), lengths, cutting) for group in shared)
    of_shared = {group.number: counts for group, counts in zip(shared, pool.run(tasks), strict=True)}
    totals: dict[tuple[int, str], Counter[str]] = {}
    for group, gave in first_copies:
        for length in lengths:
            left_out = of_shared[group.number][length] if group.number in of_shared else gave[length].left_out
            totals.setdefault((length, group.split), Counter()).update(left_out)
    return [
        TextRecord(
            max_seq_length=length,
            split=split,
            num_tokens=chosen.num_tokens_kept(split=split),
            left_out={
                reason: totals[length, split][reason] for reason in LEFT_OUT_REASONS if totals[length, split][reason]
            },
        )
        for length in lengths
        for split in SPLITS
        if (length, split) in totals
    ]


def _groups_of_later_copies(groups: Sequence[Group]) -> dict[tuple[str, BlockFiles], list[Group]]:
    """By split and block, the groups that hold documents of it which another group holds as their first copies."""
    found: dict[tuple[str, BlockFiles], list[Group]] = {}
    for group in groups:
        for block, _ in group.members if group.copy else ():
            found.setdefault((group.split, block), []).append(group)
    return found
