"""`bert-lamb doctor`: what can be known before a run, on this machine or, under a launcher, on all."""

import socket
from dataclasses import replace
from pathlib import Path

from bert_lamb.config.doctor import DoctorConfig
from bert_lamb.doctor import hosts, machine, network, storage, training
from bert_lamb.doctor.examination import Check, Examination, examine
from bert_lamb.doctor.ranks import MissingRanksError, Ranks, meet
from bert_lamb.doctor.report import Report
from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.engine.launch import Process, leave_process_group, this_process
from bert_lamb.errors import UserError
from bert_lamb.outputs.plain import to_plain
from bert_lamb.pretraining.command import recipe_of
from bert_lamb.pretraining.initial_weights import InitialWeights, read_initial_weights
from bert_lamb.train.settings import CheckpointSettings

CHECKS = (  # in this order: later ones take what earlier ones have found
    Check("versions", machine.collect_versions, machine.judge_versions),
    Check("gpu", machine.collect_gpu, machine.judge_gpus),
    Check("kernels", machine.collect_kernels, machine.judge_kernels),
    Check("resources", machine.collect_resources, machine.judge_resources),
    Check("host names", hosts.collect_host_names, hosts.judge_host_names),
    Check("clocks", hosts.collect_clocks, hosts.judge_clocks),
    Check("run_dir", storage.collect_run_dir, storage.judge_run_dir),
    Check("file system", storage.collect_shared, storage.judge_shared),
    Check("initial weights", training.collect_initial_weights, training.judge_initial_weights),
    Check("shards", training.collect_shards, training.judge_shards),
    Check("batch plan", training.collect_batch_plan, training.judge_batch_plan),
    Check("memory", training.collect_memory, training.judge_memory),
    Check("process group", network.collect_group, network.judge_group, is_collective=True),
    Check("all-reduce", network.collect_all_reduce, network.judge_all_reduce, is_collective=True),
    Check("pairs", network.collect_pairs, network.judge_pairs, is_collective=True),
    Check("step", training.collect_step, training.judge_step, is_collective=True),
)


def doctor(config: DoctorConfig) -> bool:
    """Print the findings on rank 0; returns whether a check failed, on every rank. Raises UserError."""
    process, why_no_device = process_of(config)
    output = Path(config.output) if config.output is not None else None
    ranks = meet(process, timeout_seconds=config.timeout_seconds)
    examination = examination_of(config, process, ranks, why_no_device)
    # Rank 0's folder: others may not have it, and nobody goes on alone.
    if output is not None and not ranks.gather("output", output.absolute().parent.is_dir())[0]:
        raise UserError(
            found=f"output={output}, whose folder does not exist", expected="a file in a folder", fix="set output"
        ).reported_by("rank 0")
    report = Report([check.name for check in CHECKS], examination.hosts, is_shown=process.is_main, file=output)
    examine(CHECKS, examination, report)
    report.finish()
    if examination.is_connected:
        leave_process_group()
    return report.has_failed


def process_of(config: DoctorConfig) -> tuple[Process, UserError | None]:
    """This rank on the device that the runtime asks for; on the CPU, and why, where that is not there."""
    device, num_threads = config.runtime.device, config.runtime.num_threads
    try:
        return this_process(device=device, num_threads=num_threads), None  # type: ignore[arg-type]
    except UserError as error:
        return this_process(device="cpu", num_threads=num_threads), error


def examination_of(
    config: DoctorConfig, process: Process, ranks: Ranks, why_no_device: UserError | None
) -> Examination:
    plain = to_plain(config)
    recipe, runtime = recipe_of(plain), RuntimeSettings(**plain["runtime"])
    if runtime.device == "auto" and not recipe.phases and process.world_size == 1 and process.device.type == "cpu":
        # Nothing says what would run here: plain PyTorch, which starts in a moment where DeepSpeed takes seconds.
        runtime = replace(runtime, engine="torch", precision="fp32", offload_optimizer=False, deepspeed_overrides={})
    try:
        host_by_rank = ranks.gather("hosts", socket.gethostname())
    except MissingRanksError as missing:
        raise UserError(
            found=f"nothing from ranks {', '.join(map(str, missing.ranks))} in {ranks.timeout_seconds:g} s",
            expected="every rank started with this command",
            fix="look at the other ranks' first error, or set timeout_seconds",
        ).reported_by("rank 0") from missing
    initial: InitialWeights | UserError | None = None
    if config.initial_weights is not None:
        try:
            initial = read_initial_weights(Path(config.initial_weights))
        except UserError as error:
            initial = error
    return Examination(
        recipe=recipe,
        runtime=runtime,
        checkpoint=CheckpointSettings(**plain["checkpoint"]),
        shards=Path(config.shards) if config.shards is not None else None,
        run_dir=Path(config.run_dir) if config.run_dir is not None else None,
        if_exists=config.if_exists.value,
        process=process,
        ranks=ranks,
        hosts=host_by_rank,
        why_no_device=why_no_device,
        initial=initial,
        all_reduce_bytes=int(config.all_reduce_mb * 1e6) if config.all_reduce_mb is not None else None,
        takes_step=config.step,
    )
