"""What each command does with its typed configuration: unpack it and call one room with plain values.

The only module that knows both the configuration and data_prep. Imports are inside the functions, so that
`bert-lamb --help` and a mistaken configuration never wait for torch. Each returns the exit status.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_lamb.config.corpus import CorpusConfig, DemoDataConfig, MergeConfig, PrepareConfig, VocabConfig
from bert_lamb.config.doctor import DoctorConfig
from bert_lamb.config.evaluate import EvaluateConfig
from bert_lamb.config.glue import GlueConfig
from bert_lamb.config.model_import import ImportConfig
from bert_lamb.config.plan import PlanConfig
from bert_lamb.config.pretrain import PretrainConfig
from bert_lamb.config.results import BatchConfig, ExportConfig, PushConfig, ReportConfig
from bert_lamb.config.runtime import Precision, RuntimeConfig
from bert_lamb.config.shards import InspectConfig, VerifyConfig
from bert_lamb.config.squad import AskConfig, ScoreConfig, SquadConfig
from bert_lamb.config.study import StudyConfig, check_cell
from bert_lamb.config.vision import VisionConfig
from bert_lamb.errors import UserError, UserErrors
from bert_lamb.outputs.plain import to_plain

if TYPE_CHECKING:
    from data_prep.settings import Settings, Spread


ACCELERATORS = ("cpu", "cuda")  # of DeepSpeed's, those that this project runs on
OUTPUTS = ("output_dir", "output_file", "run_dir")  # the first that a command has says where it writes


def run_demo_data(config: DemoDataConfig) -> int:
    from data_prep.demo.corpus import make_demo_data

    make_demo_data(Path(config.output_dir), if_exists=config.if_exists.value)
    return 0


def run_prepare(config: PrepareConfig) -> int:
    from data_prep.prepare import prepare

    settings, spread = _corpus(config, share=config.share)
    prepare(settings, spread, output_dir=Path(config.output_dir), if_exists=config.if_exists.value)
    return 0


def run_merge(config: MergeConfig) -> int:
    from data_prep.prepare import merge

    settings, spread = _corpus(config)
    merge(settings, spread, output_dir=Path(config.output_dir))
    return 0


def run_vocab(config: VocabConfig) -> int:
    from data_prep.vocab import train_vocabulary

    settings, spread = _corpus(config)
    train_vocabulary(settings, spread, output_file=Path(config.output_file), if_exists=config.if_exists.value)
    return 0


def _corpus(config: CorpusConfig, *, share: str | None = None) -> "tuple[Settings, Spread]":
    """The plain values that data_prep takes."""
    from data_prep.settings import Cleaning, Settings, Spread
    from data_prep.sources import Source

    settings = Settings(
        sources=tuple(Source(name=name, **to_plain(source)) for name, source in config.sources.items()),
        vocabulary_file=Path(config.vocabulary.file) if config.vocabulary.file else None,
        vocabulary_train_size=config.vocabulary.train_size,
        is_lowercase=config.vocabulary.is_lowercase,
        max_seq_lengths=tuple(config.max_seq_lengths),
        sentence_task=config.sentence_task.value,
        short_seq_prob=config.short_seq_prob,
        random_next_prob=config.random_next_prob,
        heldout_proportion=config.heldout_proportion,
        cleaning=Cleaning(**to_plain(config.cleaning)),
        group_tokens=config.group_tokens,
        instances_per_shard=config.instances_per_shard,
        seed=config.seed,
    )
    return settings, Spread(config.partition_bytes, config.num_workers, share)


def run_verify(config: VerifyConfig) -> int:
    from bert_lamb.shards.verify import verify

    complaints = verify(Path(config.shards_dir))
    for complaint in complaints:
        print(complaint)
    print(f"{config.shards_dir}: {'ok' if not complaints else f'{len(complaints)} errors'}")
    return 1 if complaints else 0


def run_inspect(config: InspectConfig) -> int:
    from bert_lamb.shards.inspect import inspect

    texts = inspect(
        Path(config.shards_dir),
        max_seq_length=config.max_seq_length,
        split=config.split,
        shard=config.shard,
        first=config.first,
        count=config.count,
        with_pieces=config.pieces,
    )
    _show(texts)
    return 0


def run_batch(config: BatchConfig) -> int:
    from bert_lamb.pretraining.batch import read_run, texts_of_step, write_order

    of_run = read_run(Path(config.run_dir), config.phase, config.shards)
    if config.epoch is not None and config.output is not None:
        write_order(of_run, config.epoch, Path(config.output))
    else:
        _show(texts_of_step(of_run, config.step, first=config.first, count=config.count, with_pieces=config.pieces))
    return 0


def _show(texts: list[str]) -> None:
    try:
        print("\n\n".join(texts), flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit flushes in silence


def run_pretrain(config: PretrainConfig) -> int:
    _settle_device(config.runtime)
    from bert_lamb.pretraining.command import pretrain

    pretrain(config)
    return 0


def run_doctor(config: DoctorConfig) -> int:
    import torch

    if config.runtime.device == "cpu" or not torch.cuda.is_available():
        _keep_deepspeed_on_cpu()
    from bert_lamb.doctor.command import doctor

    return 1 if doctor(config) else 0


def run_plan(config: PlanConfig) -> int:
    if config.planner.measure:
        _keep_deepspeed_on_cpu()
    from bert_lamb.planner.command import plan_command

    plan_command(config)
    return 0


def _settle_device(runtime: RuntimeConfig) -> None:
    """Refuse fp16 where runtime.device=auto finds no GPU, and tell DeepSpeed where there is none to look for."""
    _check_accelerator()
    if runtime.device == "auto":
        import torch

        if torch.cuda.is_available():
            return
        if runtime.precision is Precision.fp16:
            raise UserError(
                found="runtime.precision=fp16 and runtime.device=auto where torch sees no GPU",
                expected="fp32 or bf16 on the CPU",
                fix="set runtime.precision, or see that torch finds the GPU",
            )
    if runtime.device != "cuda":
        _keep_deepspeed_on_cpu()


def run_evaluate(config: EvaluateConfig) -> int:
    _keep_deepspeed_on_cpu()
    from bert_lamb.pretraining.evaluate import Question, evaluate
    from bert_lamb.pretraining.recipe import MaskingSettings

    question = Question(
        max_seq_length=config.max_seq_length,
        split=config.split,
        max_instances=config.max_instances,
        masking=MaskingSettings(**to_plain(config.masking)),
        max_predictions_per_seq=config.max_predictions_per_seq,
        seed=config.seed,
    )
    evaluate(
        Path(config.model_dir),
        Path(config.shards),
        question,
        device=config.device,
        precision=config.precision,
        micro_batch_size=config.micro_batch_size,
    )
    return 0


def run_export(config: ExportConfig) -> int:
    _keep_deepspeed_on_cpu()
    from bert_lamb.checkpoint.export import export

    export(
        run_dir=Path(config.run_dir),
        checkpoint=config.checkpoint,
        output_dir=Path(config.output_dir),
        if_exists=config.if_exists.value,
        with_onnx=config.onnx,
    )
    return 0


def run_push(config: PushConfig) -> int:
    _keep_deepspeed_on_cpu()
    from bert_lamb.checkpoint.push import push

    push(
        Path(config.model_dir),
        config.repo,
        is_private=config.private,
        message=config.message,
        endpoint=config.endpoint,
        is_dry_run=config.dry_run,
    )
    return 0


def run_import(config: ImportConfig) -> int:
    _keep_deepspeed_on_cpu()
    from bert_lamb.checkpoint.importing.command import import_checkpoint

    import_checkpoint(
        source=Path(config.source),
        config_file=Path(config.config) if config.config is not None else None,
        vocabulary_file=Path(config.vocab) if config.vocab is not None else None,
        is_lowercase=config.is_lowercase,
        output_dir=Path(config.output_dir),
        if_exists=config.if_exists.value,
    )
    return 0


def run_squad(config: SquadConfig) -> int:
    _settle_device(config.runtime)
    from bert_lamb.finetuning.squad.command import squad

    squad(config)
    return 0


def run_ask(config: AskConfig) -> int:
    _keep_deepspeed_on_cpu()
    from bert_lamb.finetuning.squad.ask import AnswerSettings, ask
    from bert_lamb.finetuning.squad.material import WindowSettings

    ask(
        Path(config.model_dir),
        Path(config.context),
        config.question,
        WindowSettings(config.max_seq_length, config.doc_stride, config.max_query_length),
        AnswerSettings(config.num_answers, config.max_answer_length, config.may_be_unanswerable),
    )
    return 0


def run_score(config: ScoreConfig) -> int:
    from bert_lamb.finetuning.squad.score_command import score_files

    score_files(
        Path(config.data),
        Path(config.predictions),
        na_prob=Path(config.na_prob) if config.na_prob is not None else None,
        na_prob_thresh=config.na_prob_thresh,
        version=config.version,  # type: ignore[arg-type]
        page=Path(config.page) if config.page is not None else None,
    )
    return 0


def run_glue(config: GlueConfig) -> int:
    _settle_device(config.runtime)
    from bert_lamb.finetuning.glue.command import glue

    glue(config)
    return 0


def run_vision(config: VisionConfig) -> int:
    _settle_device(config.runtime)
    from bert_lamb.vision.command import vision

    vision(config)
    return 0


def run_report(config: ReportConfig) -> int:
    from bert_lamb.report import report

    report(
        run_dir=Path(config.run_dir),
        score_dirs={label: Path(path) for label, path in config.scores.items()},
        compare=[Path(path) for path in config.compare],
    )
    return 0


def run_study(config: StudyConfig) -> int:
    from bert_lamb.cli.compose import compose
    from bert_lamb.study.command import study

    def composed(words: list[str]) -> StudyConfig:
        of_cell: StudyConfig = compose("study", words)
        if complaints := check_cell(of_cell):
            raise UserErrors(complaints)
        return of_cell

    if config.study.cell is None:
        study(config, composed)
        return 0
    from bert_lamb.study.cell import launch_cell, run_cell

    if config.study.launch:
        launch_cell(config)
    else:
        _settle_device(config.runtime)
        run_cell(config, composed)
    return 0


def _keep_deepspeed_on_cpu() -> None:
    """Say so before transformers imports DeepSpeed, which otherwise warns that it found no accelerator."""
    _check_accelerator()
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


def _check_accelerator() -> None:
    """DeepSpeed reads its variable when it is imported, and takes an empty one for a name."""
    if not os.environ.get("DS_ACCELERATOR", "cpu"):
        del os.environ["DS_ACCELERATOR"]
    name = os.environ.get("DS_ACCELERATOR", "cpu")
    if name not in ACCELERATORS:
        raise UserError(
            found=f"DS_ACCELERATOR={name} in the environment",
            expected=f"{' or '.join(ACCELERATORS)}, or nothing",
            fix="unset DS_ACCELERATOR",
        ).reported_by("machine")


COMMANDS: dict[str, Callable[[Any], int]] = {
    "demo-data": run_demo_data,
    "prepare": run_prepare,
    "merge": run_merge,
    "vocab": run_vocab,
    "verify": run_verify,
    "inspect": run_inspect,
    "pretrain": run_pretrain,
    "doctor": run_doctor,
    "plan": run_plan,
    "batch": run_batch,
    "evaluate": run_evaluate,
    "export": run_export,
    "push": run_push,
    "import": run_import,
    "squad": run_squad,
    "ask": run_ask,
    "score": run_score,
    "glue": run_glue,
    "vision": run_vision,
    "report": run_report,
    "study": run_study,
}
