"""The schema of every command: each name, its type, its one default, its unit, and the checks across fields.

Hydra composes these from conf/ and the command line. `to_typed` turns the composed node into the dataclasses below,
raising all complaints at once. Rooms below the door never see these objects; they take plain values.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bert_lamb.errors import UserError, UserErrors
from bert_lamb.finite import not_finite
from bert_lamb.paths import settle_texts

MAX_SEED = 2**63 - 1  # what torch, numpy and the files take
PHASES_OF_RUNTIMES = {"phase1", "phase2"}  # those for which conf/runtime has a micro-batch, needed or not
MAX_SHARD_TOKENS = 2**31 - 1  # as in shards/schema.py, which this module does not import


class IfExists(Enum):
    """What to do when the output is there already."""

    refuse = "refuse"  # stop with an error
    resume = "resume"  # continue it, or keep it if it is finished; refuse if the configuration differs
    restart = "restart"  # delete it and start anew


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
    none = "none"  # as it comes; BERT's tokeniser takes accents off for an uncased vocabulary all the same
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
    sentence_order = "sentence_order"  # ALBERT: is B behind A, or are they swapped?
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
    weight: float = 1.0  # how often its training documents are used, in the mean; 0.5: half of them, 2: each twice
    license: str = ""  # free text, kept in the manifest


@dataclass
class CleaningConfig:
    """Which documents, and what of them, are kept. Every document left out is counted under its reason."""

    min_characters: int = 50  # of plain text; shorter documents are dropped
    min_words: int = 0  # parted by white space; documents of fewer are dropped
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
    partition_bytes: int = 4_000_000  # of input a unit of work is cut to. Does not change the bytes written
    num_workers: int | None = None  # processes; None: one for each core. Does not change the bytes written


@dataclass
class PrepareConfig(CorpusConfig):
    """`bert-lamb prepare`: raw text -> Arrow shards and manifest."""

    output_dir: str = MISSING
    share: str | None = None  # INDEX/COUNT: only this share of the partitions, to be merged later; None: everything
    if_exists: IfExists = IfExists.refuse


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
class VerifyConfig:
    """`bert-lamb verify`: check every hash, count and invariant of prepared shards."""

    shards_dir: str = MISSING


@dataclass
class InspectConfig:
    """`bert-lamb inspect`: show instances of prepared shards as text."""

    shards_dir: str = MISSING
    max_seq_length: int | None = None  # tokens; None: the shortest that the folder has
    split: str | None = None  # train or heldout; None: train
    shard: str | None = None  # a file of the folder, instead of max_seq_length and split; `first` then counts its rows
    first: int = 0  # number of the first instance shown
    count: int = 3  # instances shown, at most
    pieces: bool = False  # every piece with its id, instead of words


@dataclass
class DemoDataConfig:
    """`bert-lamb demo-data`: fetch the embedded default corpus and make its question-answering set."""

    output_dir: str = MISSING
    if_exists: IfExists = IfExists.resume


class DecayOrigin(Enum):
    """From where polynomial decay is measured."""

    start = "start"  # step 0, as Google's and NVIDIA's code: the lr drops at once when warm-up ends
    warmup_end = "warmup_end"  # continuous: the multiplier is 1 when warm-up ends


@dataclass
class PhaseConfig:
    """One stretch of pretraining with its own length, batch and schedule."""

    shards: str = MISSING  # folder made by `prepare`
    max_seq_length: int = MISSING  # tokens
    max_predictions_per_seq: int = MISSING  # masked tokens at most
    global_batch_size: int = MISSING  # sequences per optimizer step, over all ranks
    total_steps: int = MISSING  # optimizer steps
    peak_lr: float = MISSING
    warmup_proportion: float = MISSING  # of this phase's total_steps
    decay_power: float = 1.0
    decay_origin: DecayOrigin = DecayOrigin.warmup_end


@dataclass
class ModelConfig:
    """Sizes of BERT (Devlin et al. 2019, section 3); the vocabulary size comes from the shards."""

    num_layers: int = MISSING
    hidden_size: int = MISSING
    num_heads: int = MISSING
    intermediate_size: int = MISSING
    dropout: float = 0.1  # hidden states and attention probabilities
    max_position_embeddings: int = 512
    vocab_size_multiple: int = 8  # the embedding is padded to a multiple, for the matrix units; 1: no padding
    init_std: float = 0.02


@dataclass
class OptimizerConfig:
    """What every optimizer has."""

    name: str = MISSING
    weight_decay: float = 0.01  # not on bias and LayerNorm


class OptimizerImplementation(Enum):
    """How LAMB and LARS are computed; does not change the outcome beyond rounding."""

    auto = "auto"  # fused where it can be, else foreach
    reference = "reference"  # one tensor, one equation a line
    foreach = "foreach"  # many tensors per kernel
    fused = "fused"  # Triton, on a GPU
    apex = "apex"  # NVIDIA apex's FusedLAMB, where it is installed; LAMB with engine=torch only


class Nesterov(Enum):
    none = "none"
    first = "first"  # N-LAMB
    both = "both"  # NN-LAMB


class NormName(Enum):
    l2 = "l2"
    l1 = "l1"
    linf = "linf"


@dataclass
class LayerwiseConfig(OptimizerConfig):
    """What LAMB and LARS share; bert_lamb/optim/README.md has the formulas."""

    adapt_undecayed: bool = False  # a trust ratio for bias and LayerNorm too (NVLAMB)
    norm: NormName = NormName.l2  # of weights and directions
    param_norm_bounds: list[float] | None = None  # [lower, upper]: phi clips the weights' norm
    trust_ratio_bounds: list[float] | None = None  # [lower, upper]: the ratio is clipped
    implementation: OptimizerImplementation = OptimizerImplementation.auto


@dataclass
class LambConfig(LayerwiseConfig):
    name: str = "lamb"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    bias_correction: bool = True  # on the moments: the paper's v5; off: its v3 and Google's code
    nesterov: Nesterov = Nesterov.none


@dataclass
class LarsConfig(LayerwiseConfig):
    name: str = "lars"
    beta: float = 0.9  # decay of the momentum


@dataclass
class AdamWConfig(OptimizerConfig):
    name: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6


@dataclass
class MaskingConfig:
    """Masked-LM corruption (Devlin et al. 2019, section 3.1)."""

    mask_prob: float = 0.15  # share of tokens predicted
    mask_token_prob: float = 0.8  # of those: replaced by [MASK]
    random_token_prob: float = 0.1  # of those: replaced by a random token; the rest stays
    masking_copies: int = 0  # N: masks repeat every N epochs, as static duplication; 0: new masks every epoch
    whole_word: bool = False  # all pieces of a word are predicted together, as in BERT's whole-word-masking models


class EngineName(Enum):
    torch = "torch"  # plain PyTorch, one process
    deepspeed = "deepspeed"


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"  # GPU only; dynamic loss scale


@dataclass
class RuntimeConfig:
    """How the run is computed; nothing here changes the outcome beyond rounding, and the draws of dropout."""

    engine: EngineName = EngineName.deepspeed
    device: str = "auto"  # auto, cpu or cuda
    precision: Precision = Precision.bf16
    zero_stage: int = 1  # 0..3, deepspeed only
    offload_optimizer: bool = False  # optimizer state in CPU memory; deepspeed with zero_stage 1..3
    micro_batch_size: dict[str, int] = field(
        default_factory=dict
    )  # sequences per rank and micro-step, by phase: at most
    num_threads: int | None = None  # CPU threads per rank; None: as the environment says
    verify_shards: bool = True  # hash every shard before the first step, dealt out over the ranks
    loader_workers: int = 0  # processes per rank that build batches; 0: in the training process
    deepspeed_overrides: dict[str, Any] = field(default_factory=dict)  # merged last into DeepSpeed's json, and printed


@dataclass
class EvaluationConfig:
    """Held-out evaluation: masked-LM loss and accuracy, next-sentence accuracy."""

    interval_steps: int = 0  # optimizer steps; 0: only at the end of a phase
    max_instances: int = 4_096  # held-out instances per evaluation, from the start of the set; 0: no evaluation
    micro_batch_size: int = 32  # sequences per rank


@dataclass
class CheckpointConfig:
    """Saved at the end of each phase, and as often as these say: a lost machine costs what is between."""

    interval_steps: int = 0  # optimizer steps; 0: not by steps
    interval_minutes: float = 10.0  # by rank 0's clock, after the step that is at work; 0: not by time
    keep_last: int = 2  # older ones by steps are removed within a phase; of those by the clock the newest stays


@dataclass
class LoggingConfig:
    interval_steps: int = 1  # optimizer steps between lines of metrics.jsonl
    trust_ratio_interval_steps: int = 0  # steps between records of every parameter's trust ratio; 0: never


@dataclass
class TrackerConfig:
    name: str = "none"  # none or wandb
    project: str = "bert-lamb"
    mode: str = "offline"  # wandb: online, offline or disabled


@dataclass
class PretrainConfig:
    """`bert-lamb pretrain`: shards -> checkpoints, phase after phase."""

    run_dir: str = MISSING
    shards: str = MISSING  # the phases' default
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    phases: dict[str, PhaseConfig] = field(default_factory=dict)  # run in this order
    max_grad_norm: float = 1.0  # clip of the global gradient norm; 0: no clipping
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    seed: int = 42
    if_exists: IfExists = IfExists.refuse


@dataclass
class ExportConfig:
    """`bert-lamb export`: a checkpoint -> a folder that transformers loads."""

    run_dir: str = MISSING
    checkpoint: str = "latest"  # latest, or the name of a folder under run_dir/checkpoints
    output_dir: str = MISSING
    if_exists: IfExists = IfExists.refuse


class InitialWeights(Enum):
    pretrained = "pretrained"  # the encoder in `model_dir`
    random = "random"  # the same sizes with random weights: the baseline of a pretraining run


@dataclass
class SquadConfig:
    """`bert-lamb squad`: fine-tune, predict and score extractive question answering on SQuAD v1.1 json."""

    model_dir: str = MISSING  # an export, or any folder with a Hugging Face BERT
    output_dir: str = MISSING
    train_file: str | None = None  # None: predict and score only
    eval_file: str = MISSING
    dataset_name: str = "SQuAD v1.1"  # how reports call these questions
    initial_weights: InitialWeights = InitialWeights.pretrained
    max_seq_length: int = 384  # tokens: question, context window and special tokens
    doc_stride: int = 128  # tokens from one window's start to the next's, as in Google's run_squad.py
    max_query_length: int = 64  # tokens of the question; the rest is cut
    n_best_size: int = 20
    max_answer_length: int = 30  # tokens
    batch_size: int = 32  # features per optimizer step
    micro_batch_size: int = 32  # features per forward and backward: at most
    peak_lr: float = 3e-5
    warmup_proportion: float = 0.1
    num_epochs: float = 2.0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    device: str = "auto"  # auto, cpu or cuda
    precision: Precision = Precision.fp32  # fp32 or bf16 (autocast)
    seed: int = 42
    if_exists: IfExists = IfExists.refuse


@dataclass
class ReportConfig:
    """`bert-lamb report`: report.json and report.html of a run."""

    run_dir: str = MISSING
    scores: dict[str, str] = field(default_factory=dict)  # label -> folder of a `squad` run


SCHEMAS: dict[str, type[Any]] = {
    "prepare": PrepareConfig,
    "merge": MergeConfig,
    "vocab": VocabConfig,
    "verify": VerifyConfig,
    "inspect": InspectConfig,
    "demo-data": DemoDataConfig,
    "pretrain": PretrainConfig,
    "export": ExportConfig,
    "squad": SquadConfig,
    "report": ReportConfig,
}


def register_schemas() -> None:
    """Make the dataclasses known to Hydra as `schema/<command>` and `schema/optimizer/<name>`."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for command, schema in SCHEMAS.items():
        store.store(group="schema", name=command, node=schema)
    store.store(group="schema/optimizer", name="lamb", node=LambConfig)
    store.store(group="schema/optimizer", name="lars", node=LarsConfig)
    store.store(group="schema/optimizer", name="adamw", node=AdamWConfig)


def to_typed(command: str, node: DictConfig) -> Any:
    """The composed configuration as the command's dataclass; raises UserErrors with every complaint at once.

    A leading ~ in a path is the home folder here and below.
    """
    unknown = list(_unknown_keys(node, SCHEMAS[command]))
    if unknown:
        raise UserErrors(unknown)
    missing = _missing_keys(OmegaConf.to_container(node, resolve=False))
    if missing:
        raise UserErrors(
            [
                UserError(
                    found=f"no value for {key}", expected="one", fix=f"add {key}=... to the command line or a recipe"
                )
                for key in missing
            ]
        )
    try:
        config = OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise UserError(
            found=f"configuration {str(error).splitlines()[0]}",
            expected=f"the schema of `{command}`",
            fix=f"see bert-lamb {command} --cfg job",
        ) from error
    complaints = settle_texts(config) + (not_finite(config) or CHECKS[command](config))
    if complaints:
        raise UserErrors(complaints)
    return config


def _unknown_keys(node: Any, schema: type[Any], prefix: str = "") -> Iterator[UserError]:
    """Keys that +key=value has put beside the fields of a dataclass, where nobody would read them."""
    for name in node:
        child = None if OmegaConf.is_missing(node, name) else node._get_node(name)
        if is_dataclass(schema) and name not in schema.__dataclass_fields__:
            near = difflib.get_close_matches(str(name), schema.__dataclass_fields__)
            yield UserError(
                found=f"{prefix}{name}, which no field is called",
                expected=f"one of {', '.join(near or schema.__dataclass_fields__)}",
                fix=f"set one of them instead of {prefix}{name}",
            )
        elif isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            yield from _unknown_keys(child, OmegaConf.get_type(child) or dict, f"{prefix}{name}.")


def _missing_keys(tree: object, prefix: str = "") -> list[str]:
    """Dotted keys without a value; unlike OmegaConf's, it does not stumble over interpolations of such keys."""
    if isinstance(tree, dict):
        return [key for name, value in tree.items() for key in _missing_keys(value, f"{prefix}{name}.")]
    return [prefix[:-1]] if tree == MISSING else []


class Complaints(list[UserError]):
    """Collects what is wrong with one configuration."""

    def unless(self, condition: bool, key: str, value: object, expected: str) -> None:
        if not condition:
            self.append(UserError(found=f"{key}={value}", expected=expected, fix=f"set {key}"))


def _check_if_positive(complaints: Complaints, prefix: str, holder: object, *names: str) -> None:
    for name in names:
        value = getattr(holder, name)
        complaints.unless(value is None or value > 0, prefix + name, value, "a number above 0")


def _check_if_share(complaints: Complaints, prefix: str, holder: object, *names: str) -> None:
    for name in names:
        value = getattr(holder, name)
        complaints.unless(0 <= value <= 1, prefix + name, value, "a share in 0..1")


def _check_names(complaints: Complaints, key: str, mapping: dict[str, Any]) -> None:
    """Names of phases and sources become parts of names of files."""
    for name in mapping:
        is_plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", str(name)) is not None
        complaints.unless(is_plain, f"{key}.{name}", "...", "a name of letters a to z, digits, _ and -")


def check_corpus(config: CorpusConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(0 <= config.seed <= MAX_SEED, "seed", config.seed, "0 to 2^63 - 1")
    complaints.unless(
        bool(config.sources),
        "sources",
        "{}",
        "at least one source: corpus=NAME, or sources.NAME.kind=KIND sources.NAME.path=PATH",
    )
    _check_names(complaints, "sources", config.sources)
    for name, source in config.sources.items():
        if source.kind is SourceKind.huggingface:
            complaints.unless(bool(source.dataset), f"sources.{name}.dataset", "''", "the name of a dataset")
        else:
            complaints.unless(bool(source.path), f"sources.{name}.path", "''", "a file, folder or glob pattern")
        _check_if_positive(complaints, f"sources.{name}.", source, "max_documents", "weight")
        complaints.unless(source.min_documents >= 0, f"sources.{name}.min_documents", source.min_documents, "0 or more")
    complaints.unless(bool(config.max_seq_lengths), "max_seq_lengths", "[]", "at least one length")
    for length in config.max_seq_lengths:
        complaints.unless(8 <= length <= 65_535, "max_seq_lengths", length, "lengths in 8..65535")
    _check_if_share(complaints, "", config, "short_seq_prob", "random_next_prob", "heldout_proportion")
    _check_if_positive(complaints, "", config, "group_tokens", "partition_bytes", "instances_per_shard", "num_workers")
    longest = max(config.max_seq_lengths, default=1)
    complaints.unless(
        config.instances_per_shard * longest <= MAX_SHARD_TOKENS,
        "instances_per_shard",
        config.instances_per_shard,
        f"at most {MAX_SHARD_TOKENS // max(longest, 1)} at length {longest}: a shard holds 2^31 - 1 tokens",
    )
    _check_if_share(complaints, "cleaning.", config.cleaning, "near_duplicate_threshold")
    for bound in ("min_characters", "min_words"):
        value = getattr(config.cleaning, bound)
        complaints.unless(value >= 0, f"cleaning.{bound}", value, "0 or more")
    complaints.unless(
        config.vocabulary.train_size >= 100, "vocabulary.train_size", config.vocabulary.train_size, "at least 100"
    )
    return complaints


def check_inspect(config: InspectConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(config.first >= 0, "first", config.first, "0 or more")
    _check_if_positive(complaints, "", config, "count", "max_seq_length")
    is_set_chosen = config.max_seq_length is not None or config.split is not None
    complaints.unless(
        config.shard is None or not is_set_chosen, "shard", config.shard, "no max_seq_length and no split beside it"
    )
    return complaints


def check_prepare(config: PrepareConfig) -> Complaints:
    complaints = check_corpus(config)
    if config.share is not None:
        index, _, count = config.share.partition("/")
        is_share = index.isdecimal() and count.isdecimal() and int(index) < int(count)
        complaints.unless(is_share, "share", config.share, "INDEX/COUNT with INDEX from 0 to COUNT - 1, such as 0/4")
    return complaints


def check_pretrain(config: PretrainConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(0 <= config.seed <= MAX_SEED, "seed", config.seed, "0 to 2^63 - 1")
    model, runtime, masking = config.model, config.runtime, config.masking
    _check_if_positive(
        complaints,
        "model.",
        model,
        "num_layers",
        "hidden_size",
        "num_heads",
        "intermediate_size",
        "vocab_size_multiple",
    )
    _check_if_positive(complaints, "model.", model, "max_position_embeddings", "init_std")
    _check_if_share(complaints, "model.", model, "dropout")
    complaints.unless(
        model.num_heads > 0 and model.hidden_size % model.num_heads == 0,
        "model.hidden_size",
        model.hidden_size,
        f"a multiple of model.num_heads={model.num_heads}",
    )
    complaints.unless(bool(config.phases), "phases", "{}", "at least one phase (choose a recipe)")
    for name, phase in config.phases.items():
        prefix = f"phases.{name}."
        _check_if_positive(
            complaints, prefix, phase, "max_predictions_per_seq", "global_batch_size", "total_steps", "peak_lr"
        )
        _check_if_positive(complaints, prefix, phase, "decay_power", "max_seq_length")
        complaints.unless(
            phase.max_predictions_per_seq <= phase.max_seq_length - 2,
            f"{prefix}max_predictions_per_seq",
            phase.max_predictions_per_seq,
            f"at most {phase.max_seq_length - 2}: of max_seq_length={phase.max_seq_length} two or more are special",
        )
        _check_if_share(complaints, prefix, phase, "warmup_proportion")
        complaints.unless(
            phase.max_seq_length <= model.max_position_embeddings,
            f"{prefix}max_seq_length",
            phase.max_seq_length,
            f"at most model.max_position_embeddings={model.max_position_embeddings}",
        )
        complaints.unless(
            runtime.micro_batch_size.get(name, 0) > 0,
            f"runtime.micro_batch_size.{name}",
            runtime.micro_batch_size.get(name, "nothing"),
            "sequences per rank and micro-step, above 0",
        )
    for name in sorted(runtime.micro_batch_size.keys() - config.phases.keys() - PHASES_OF_RUNTIMES):
        complaints.unless(
            False,
            f"runtime.micro_batch_size.{name}",
            runtime.micro_batch_size[name],
            f"a phase of this run: {', '.join(config.phases)}",
        )
    _check_names(complaints, "phases", config.phases)
    _check_if_share(complaints, "masking.", masking, "mask_token_prob", "random_token_prob")
    complaints.unless(
        masking.mask_token_prob + masking.random_token_prob <= 1,
        "masking.mask_token_prob + masking.random_token_prob",
        masking.mask_token_prob + masking.random_token_prob,
        "at most 1",
    )
    complaints.unless(masking.masking_copies >= 0, "masking.masking_copies", masking.masking_copies, "0 or more")
    is_deepspeed = runtime.engine is EngineName.deepspeed
    complaints.unless(
        not (is_deepspeed and runtime.precision is not Precision.fp32 and runtime.zero_stage == 0),
        "runtime.zero_stage",
        0,
        f"1, 2 or 3 with {runtime.precision.value}: in stage 0 DeepSpeed accumulates gradients in that precision"
        " instead of fp32 (stage 1 is the same on one rank)",
    )
    complaints.extend(check_optimizer(config))
    counts_from_zero: tuple[tuple[object, str, str], ...] = (
        (runtime, "runtime.", "loader_workers"),
        (config.evaluation, "evaluation.", "interval_steps"),
        (config.evaluation, "evaluation.", "max_instances"),
        (config.checkpoint, "checkpoint.", "interval_steps"),
        (config.checkpoint, "checkpoint.", "interval_minutes"),
        (config.logging, "logging.", "trust_ratio_interval_steps"),
    )
    for holder, prefix, name in counts_from_zero:
        complaints.unless(getattr(holder, name) >= 0, prefix + name, getattr(holder, name), "0 (never) or more")
    _check_if_positive(complaints, "runtime.", runtime, "num_threads")
    complaints.unless(0 < masking.mask_prob <= 0.5, "masking.mask_prob", masking.mask_prob, "a share in (0, 0.5]")
    complaints.unless(config.max_grad_norm >= 0, "max_grad_norm", config.max_grad_norm, "0 (off) or more")
    complaints.unless(runtime.zero_stage in (0, 1, 2, 3), "runtime.zero_stage", runtime.zero_stage, "0, 1, 2 or 3")
    complaints.unless(runtime.device in ("auto", "cpu", "cuda"), "runtime.device", runtime.device, "auto, cpu or cuda")
    complaints.unless(
        not (runtime.offload_optimizer and (runtime.engine is EngineName.torch or runtime.zero_stage == 0)),
        "runtime.offload_optimizer",
        True,
        "runtime.engine=deepspeed with runtime.zero_stage 1..3",
    )
    complaints.unless(
        not (runtime.engine is EngineName.torch and runtime.precision is Precision.fp16),
        "runtime.precision",
        "fp16",
        "fp32 or bf16 with runtime.engine=torch (loss scaling is DeepSpeed's)",
    )
    complaints.unless(
        not (runtime.device == "cpu" and runtime.precision is Precision.fp16),
        "runtime.precision",
        "fp16",
        "fp32 or bf16 on the CPU",
    )
    complaints.unless(config.tracker.name in ("none", "wandb"), "tracker.name", config.tracker.name, "none or wandb")
    complaints.unless(
        config.tracker.mode in ("online", "offline", "disabled"),
        "tracker.mode",
        config.tracker.mode,
        "online, offline or disabled",
    )
    _check_if_positive(complaints, "logging.", config.logging, "interval_steps")
    _check_if_positive(complaints, "checkpoint.", config.checkpoint, "keep_last")
    _check_if_positive(complaints, "evaluation.", config.evaluation, "micro_batch_size")
    return complaints


def check_optimizer(config: PretrainConfig) -> Complaints:
    complaints = Complaints()
    optimizer = config.optimizer
    classes = {"lamb": LambConfig, "lars": LarsConfig, "adamw": AdamWConfig}
    complaints.unless(
        type(optimizer) is classes.get(optimizer.name),
        "optimizer.name",
        optimizer.name,
        "lamb, lars or adamw, chosen with optimizer=NAME; a yaml of your own begins with "
        "defaults: [/schema/optimizer/NAME@_here_]",
    )
    complaints.unless(optimizer.weight_decay >= 0, "optimizer.weight_decay", optimizer.weight_decay, "0 or more")
    if isinstance(optimizer, LambConfig | AdamWConfig):
        for beta in optimizer.betas:
            complaints.unless(0 <= beta < 1, "optimizer.betas", tuple(optimizer.betas), "numbers in [0, 1)")
        _check_if_positive(complaints, "optimizer.", optimizer, "eps")
    if isinstance(optimizer, LarsConfig):
        complaints.unless(0 <= optimizer.beta < 1, "optimizer.beta", optimizer.beta, "a number in [0, 1)")
    if isinstance(optimizer, LayerwiseConfig):
        for name in ("param_norm_bounds", "trust_ratio_bounds"):
            bounds = getattr(optimizer, name)
            is_right = bounds is None or (len(bounds) == 2 and 0 <= bounds[0] <= bounds[1])
            complaints.unless(is_right, f"optimizer.{name}", bounds, "[lower, upper] with 0 <= lower <= upper, or null")
        if optimizer.implementation is OptimizerImplementation.apex:
            complaints.extend(check_apex(optimizer, config.runtime))
    if isinstance(optimizer, LambConfig):
        complaints.unless(
            optimizer.nesterov is Nesterov.none or optimizer.bias_correction,
            "optimizer.bias_correction",
            optimizer.bias_correction,
            f"true with optimizer.nesterov={optimizer.nesterov.value}",
        )
    return complaints


def check_apex(optimizer: LayerwiseConfig, runtime: RuntimeConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(
        runtime.engine is EngineName.torch,
        "optimizer.implementation",
        "apex",
        "runtime.engine=torch: of ZeRO's partitions apex's FusedLAMB would take one trust ratio each",
    )
    if not isinstance(optimizer, LambConfig):
        complaints.unless(False, "optimizer.implementation", "apex", "optimizer=lamb: apex has no such LARS")
        return complaints
    for name in ("nesterov", "norm", "param_norm_bounds", "trust_ratio_bounds"):
        found = getattr(optimizer, name)
        complaints.unless(
            found == getattr(LambConfig(), name),
            f"optimizer.{name}",
            found.value if isinstance(found, Enum) else found,
            "its default: apex's FusedLAMB has no other",
        )
    return complaints


def check_squad(config: SquadConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(0 <= config.seed <= MAX_SEED, "seed", config.seed, "0 to 2^63 - 1")
    _check_if_positive(
        complaints, "", config, "max_seq_length", "doc_stride", "max_query_length", "n_best_size", "max_answer_length"
    )
    _check_if_positive(complaints, "", config, "batch_size", "micro_batch_size", "peak_lr", "num_epochs")
    _check_if_share(complaints, "", config, "warmup_proportion")
    for name in ("weight_decay", "max_grad_norm"):
        complaints.unless(getattr(config, name) >= 0, name, getattr(config, name), "0 (off) or more")
    complaints.unless(
        config.max_query_length + config.doc_stride + 3 <= config.max_seq_length,
        "max_seq_length",
        config.max_seq_length,
        "at least max_query_length + doc_stride + 3, so that windows overlap",
    )
    complaints.unless(
        config.precision in (Precision.fp32, Precision.bf16), "precision", config.precision.value, "fp32 or bf16"
    )
    complaints.unless(config.device in ("auto", "cpu", "cuda"), "device", config.device, "auto, cpu or cuda")
    return complaints


def no_checks(config: object) -> Complaints:
    return Complaints()


CHECKS: dict[str, Any] = {
    "prepare": check_prepare,
    "merge": check_corpus,
    "vocab": check_corpus,
    "verify": no_checks,
    "inspect": check_inspect,
    "demo-data": no_checks,
    "pretrain": check_pretrain,
    "export": no_checks,
    "squad": check_squad,
    "report": no_checks,
}
