"""`glue`: fine-tuning and scoring on the nine tasks of GLUE."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, check_if_bearable, check_if_positive
from bert_lamb.config.run import RunConfig, check_run
from bert_lamb.config.runtime import check_micro_batches
from bert_lamb.config.squad import STAGE, InitialWeights

MIN_SEQ_LENGTH = 8  # special tokens and something of each text


class GlueTaskName(Enum):
    cola = "cola"
    sst2 = "sst2"
    mrpc = "mrpc"
    stsb = "stsb"
    qqp = "qqp"
    mnli = "mnli"
    qnli = "qnli"
    rte = "rte"
    wnli = "wnli"
    all = "all"  # every one in `tasks`, each in run_dir/TASK


@dataclass
class TaskRecipeConfig:
    """How a task is fine-tuned: a file of conf/glue_task."""

    max_seq_length: int = MISSING  # tokens of a text or pair, with special tokens; the rest is cut
    global_batch_size: int = MISSING  # rows per optimizer step, over all ranks
    peak_lr: float = MISSING
    num_epochs: float = MISSING  # 0: predict and score only, with the classifier of model_dir
    warmup_proportion: float = MISSING  # of the steps


@dataclass
class GlueConfig(RunConfig):
    """`bert-lamb glue`: fine-tune, predict and score tasks of GLUE."""

    task: GlueTaskName = MISSING
    model_dir: str = MISSING  # an export, or any folder with a Hugging Face BERT
    data_dir: str | None = None  # the folder of the GLUE zip, or of one task: train.tsv or .jsonl, dev, test
    files: dict[str, str] = field(
        default_factory=dict
    )  # split (train, dev, test, dev_matched ...) -> instead of data_dir's
    dataset: str | None = None  # a data set of Hugging Face, instead of data_dir: nyu-mll/glue
    initial_weights: InitialWeights = InitialWeights.pretrained
    tasks: dict[str, TaskRecipeConfig] = field(default_factory=dict)  # by name
    max_seq_length: int | None = None  # these five: instead of what `tasks` has
    global_batch_size: int | None = None
    peak_lr: float | None = None
    num_epochs: float | None = None
    warmup_proportion: float | None = None
    decay_power: float = 1.0
    counts_wnli: bool = False  # in the average of task=all; the leaderboard does, Devlin et al. 2019 do not


def tasks_of(config: GlueConfig) -> list[str]:
    """The names of the tasks to be run, in order."""
    return list(config.tasks) if config.task is GlueTaskName.all else [config.task.value]


def recipe_of(config: GlueConfig, name: str) -> TaskRecipeConfig:
    """What a task is fine-tuned with: its entry of `tasks`, but for what is set for whatever task is run."""
    given = config.tasks[name]
    settings = {key: getattr(config, key) for key in TaskRecipeConfig.__dataclass_fields__}
    return TaskRecipeConfig(**{key: getattr(given, key) if value is None else value for key, value in settings.items()})


def check_glue(config: GlueConfig) -> Complaints:
    complaints = Complaints()
    known = {one.value for one in GlueTaskName} - {GlueTaskName.all.value}
    for name in sorted(config.tasks.keys() - known):
        complaints.unless(False, f"tasks.{name}", "...", f"one of {', '.join(sorted(known))}")
    complaints.unless(bool(config.tasks), "tasks", "{}", "at least one task")
    names = [name for name in tasks_of(config) if name in known]
    lengths = []
    for name in names:
        if name not in config.tasks:
            complaints.unless(False, f"tasks.{name}", "nothing", f"the recipe of {name}, which is to be run")
            continue
        recipe = recipe_of(config, name)
        keys = {
            key: key if getattr(config, key) is not None else f"tasks.{name}.{key}"
            for key in TaskRecipeConfig.__dataclass_fields__
        }
        for key in ("global_batch_size", "peak_lr"):
            complaints.unless(getattr(recipe, key) > 0, keys[key], getattr(recipe, key), "a number above 0")
        check_if_bearable(complaints, keys["peak_lr"], recipe.peak_lr)
        for key, is_right, expected in (
            ("max_seq_length", recipe.max_seq_length >= MIN_SEQ_LENGTH, f"{MIN_SEQ_LENGTH} or more tokens"),
            ("warmup_proportion", 0 <= recipe.warmup_proportion <= 1, "a share in 0..1"),
            ("num_epochs", recipe.num_epochs >= 0, "0 (predict only) or a number above"),
        ):
            complaints.unless(is_right, keys[key], getattr(recipe, key), expected)
        complaints.unless(
            recipe.num_epochs != 0 or config.initial_weights is InitialWeights.pretrained,
            keys["num_epochs"],
            recipe.num_epochs,
            "above 0 with initial_weights=random, which has nothing to predict by",
        )
        lengths.append(recipe.max_seq_length)
    check_if_positive(complaints, "", config, "decay_power")
    num_given = sum((bool(config.data_dir or config.files), config.dataset is not None))
    complaints.unless(num_given == 1, "data_dir", config.data_dir, "either data_dir (or files) or dataset")
    complaints.unless(
        not (config.files and config.task is GlueTaskName.all), "files", "...", "none with task=all (set data_dir)"
    )
    if lengths:
        complaints.extend(check_micro_batches(config.runtime, {STAGE: max(lengths)}))
    complaints.extend(check_run(config))
    return complaints
