"""Stations 3 and 4 as the main process drives them: the documents that are used -> instances -> equal shards."""

from functools import partial

from bert_lamb.progress import track
from bert_lamb.shards.manifest import SPLITS, InstanceSet, Vocabulary
from bert_lamb.shards.writer import equal_shard_sizes, instance_set_of
from data_prep.documents.selection import Chosen
from data_prep.instances.cutting import CuttingSettings, ShardPlan, lay_down_instances, make_shard, plan_shards
from data_prep.instances.groups import make_groups
from data_prep.instances.sentence_tasks import InstanceSettings
from data_prep.pool import Pool
from data_prep.settings import Settings
from data_prep.workspace import Workspace


def make_instance_sets(
    chosen: Chosen, vocabulary: Vocabulary, workspace: Workspace, settings: Settings, pool: Pool
) -> list[InstanceSet]:
    """Write the shards of every length and split that has an instance, and tell what is in them."""
    cutting = CuttingSettings(
        directory=workspace.directory,
        instances_dir=workspace.instances_dir,
        vocabulary_size=vocabulary.size,
        cls_id=vocabulary.cls_id,
        sep_id=vocabulary.sep_id,
    )
    lengths = sorted(set(settings.max_seq_lengths))
    of_lengths = [
        InstanceSettings(
            settings.sentence_task, length, settings.short_seq_prob, settings.random_next_prob, settings.seed
        )
        for length in lengths
    ]
    groups = make_groups(chosen, group_tokens=settings.group_tokens)
    tasks = (partial(lay_down_instances, group, of_lengths, cutting) for group in groups)
    counts = list(track(pool.run(tasks), "making instances", total=len(groups), unit="groups"))

    plans: dict[tuple[int, str], list[ShardPlan]] = {}
    for length in lengths:
        for split in SPLITS:
            of_split = [(group, count) for group, count in zip(groups, counts, strict=True) if group.split == split]
            num_instances = sum(count[length] for _, count in of_split)
            if num_instances:
                sizes = equal_shard_sizes(num_instances, settings.instances_per_shard)
                plans[length, split] = list(plan_shards(of_split, sizes, max_seq_length=length))
    longest_first = list(reversed(plans))  # the last tasks should be short ones: nobody waits long for them
    to_write = [partial(make_shard, plan, cutting) for key in longest_first for plan in plans[key]]
    records = track(pool.run(to_write), "writing shards", total=len(to_write), unit="shards")
    records_of = {key: [next(records) for _ in plans[key]] for key in longest_first}
    return [instance_set_of(records_of[key], *key) for key in plans]
