"""The plan of a run, by arithmetic alone: batch, memory, step, hours, energy, cost, checkpoints. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bert_lamb.engine.settings import AUTO, RuntimeSettings
from bert_lamb.engine.state_size import USABLE_SHARES, state_parts
from bert_lamb.errors import UserError
from bert_lamb.model.activations import activation_bytes
from bert_lamb.model.sizes import BertSizes, num_parameters
from bert_lamb.planner.calibration import source_of_network
from bert_lamb.planner.hardware import Gpu, peak_flops
from bert_lamb.planner.ours import Chosen, compute_efficiency, method_of, precision_of_products
from bert_lamb.planner.published import GBIT, Efficiencies, mean_squared_length
from bert_lamb.planner.step import Rank, Shape, StepTime, step_time
from bert_lamb.planner.traffic import Network
from bert_lamb.train.batch_plan import BatchPlan, largest_divisor, plan_batch
from bert_lamb.train.room import checkpoint_bytes, checkpoints_at_once
from bert_lamb.train.settings import CheckpointSettings


@dataclass(frozen=True)
class PlannedPhase:
    """What decides time and memory of a phase. mean_length: of a row, real tokens."""

    name: str
    max_seq_length: int
    max_predictions_per_seq: int
    global_batch_size: int
    total_steps: int
    mean_length: float
    has_sentence_task: bool = True
    mask_prob: float = 0.15  # share of real tokens that are predicted, on average


@dataclass(frozen=True)
class Measured:
    """Of this machine: the peak of a matrix product and what a micro-step reaches, FLOP/s; bytes a rank may fill."""

    peak: float
    reached: float
    usable_bytes: float
    what: str


@dataclass(frozen=True)
class Machine:
    """gpus: ranks. watts: of each. price: of an hour of each, or None."""

    gpu: Gpu
    gpus: int
    gpus_per_node: int
    network_gbit: float
    watts: float
    price_per_gpu_hour: float | None
    compute: Chosen
    network: Chosen
    measured: Measured | None = None

    @property
    def usable_bytes(self) -> float:
        """What a rank may fill."""
        if self.measured is not None:
            return self.measured.usable_bytes
        return self.gpu.memory_bytes * USABLE_SHARES["cpu" if self.gpu.is_cpu else "cuda"]


@dataclass(frozen=True)
class Run:
    """What is to be planned. sizes: with the padded vocabulary."""

    sizes: BertSizes
    phases: Sequence[PlannedPhase]
    runtime: RuntimeSettings
    optimizer: str
    checkpoint: CheckpointSettings


@dataclass(frozen=True)
class PhasePlan:
    """memory: bytes on a rank, by part. fitting_micro_batch: rows that the memory holds. seconds: of all steps."""

    phase: PlannedPhase
    batch: BatchPlan
    computes_padding: bool
    memory: dict[str, float]
    fitting_micro_batch: int
    step: StepTime
    seconds: float
    sequences_per_second: float
    model_flops_utilization: float


@dataclass(frozen=True)
class Plan:
    """hours: of all phases. cost: in the price's currency. checkpoint_bytes: of one. checkpoints_at_once: at most."""

    machine: Machine
    run: Run
    num_parameters: int
    phases: list[PhasePlan]
    hours: float
    gpu_hours: float
    kilowatt_hours: float
    cost: float | None
    checkpoint_bytes: int
    checkpoint_bytes_per_rank: float
    checkpoints_at_once: int


def plan_run(run: Run, machine: Machine) -> Plan:
    """Raises UserError where the machine cannot compute it so."""
    check_machine(run, machine)
    count = num_parameters(run.sizes)
    phases = [plan_phase(run, machine, phase, count) for phase in run.phases]
    hours = sum(phase.seconds for phase in phases) / 3600
    price = machine.price_per_gpu_hour
    one = checkpoint_bytes(count, run.optimizer)
    return Plan(
        machine,
        run,
        count,
        phases,
        hours,
        gpu_hours=hours * machine.gpus,
        kilowatt_hours=hours * machine.gpus * machine.watts / 1000,
        cost=None if price is None else hours * machine.gpus * price,
        checkpoint_bytes=one,
        checkpoint_bytes_per_rank=one / machine.gpus,
        checkpoints_at_once=checkpoints_at_once([phase.total_steps for phase in run.phases], run.checkpoint),
    )


def check_machine(run: Run, machine: Machine) -> None:
    if run.runtime.engine == "torch" and machine.gpus > 1:
        raise UserError(
            found=f"runtime.engine=torch with planner.gpus={machine.gpus}",
            expected="one process",
            fix="set planner.gpus=1, or runtime.engine=deepspeed or fsdp",
        )
    for phase in run.phases:
        if phase.global_batch_size % machine.gpus:
            key = f"phases.{phase.name}.global_batch_size"
            raise UserError(
                found=f"{key}={phase.global_batch_size}, which planner.gpus={machine.gpus} do not share evenly",
                expected="a multiple of the number of GPUs",
                fix=f"set planner.gpus={largest_divisor(phase.global_batch_size, machine.gpus)} or {key}",
            )


def plan_phase(run: Run, machine: Machine, phase: PlannedPhase, count: int) -> PhasePlan:
    runtime, sizes = run.runtime, run.sizes
    is_padded = computes_padding(runtime, machine.gpu)
    tokens = float(phase.max_seq_length) if is_padded else phase.mean_length
    predictions = min(float(phase.max_predictions_per_seq), phase.mask_prob * phase.mean_length)
    state = state_parts(runtime, count, machine.gpus)
    row_bytes = activation_bytes(
        sizes,
        precision=runtime.precision,
        activation_checkpointing=runtime.activation_checkpointing,
        num_tokens=tokens,
        num_predictions=predictions,
    )
    fitting = int((machine.usable_bytes - sum(state.values())) / row_bytes)
    batch = plan_batch(
        key=f"phases.{phase.name}.global_batch_size",
        global_batch_size=phase.global_batch_size,
        max_micro_batch_size=asked_rows(runtime, phase, fitting),
        world_size=machine.gpus,
        total_steps=phase.total_steps,
        max_seq_length=phase.max_seq_length,
    )
    check_memory(runtime, machine, phase, batch, state, row_bytes, fitting)
    shape = Shape(
        rows=batch.micro_batch_size,
        micro_steps=batch.gradient_accumulation_steps,
        num_tokens=tokens,
        sum_squared_lengths=phase.max_seq_length**2 if is_padded else squared_length(phase),
        num_predictions=predictions,
        has_sentence_task=phase.has_sentence_task,
    )
    method = method_of(
        runtime,
        optimizer=run.optimizer,
        num_layers=sizes.num_hidden_layers,
        gpu=machine.gpu,
        is_measured=machine.measured is not None,
    )
    peak = machine.measured.peak if machine.measured else peak_flops(machine.gpu, precision_of_products(runtime))
    step = step_time(sizes, count, shape, method, rank_of(machine, peak), network_of(machine))
    useful = replace(shape, num_tokens=phase.mean_length, sum_squared_lengths=squared_length(phase))
    return PhasePlan(
        phase,
        batch,
        is_padded,
        memory={**state, "activations": batch.micro_batch_size * row_bytes},
        fitting_micro_batch=fitting,
        step=step,
        seconds=phase.total_steps * step.seconds,
        sequences_per_second=phase.global_batch_size / step.seconds,
        model_flops_utilization=useful.flops(sizes) * shape.micro_steps / step.seconds / peak,
    )


def asked_rows(runtime: RuntimeSettings, phase: PlannedPhase, fitting: int) -> int:
    """The most rows of a micro-batch: as the runtime says, or with auto as many as fit."""
    if runtime.micro_batch_size == AUTO:
        return max(1, fitting)
    return runtime.max_micro_batch_size(phase.name, mean_length=phase.mean_length)


def check_memory(
    runtime: RuntimeSettings,
    machine: Machine,
    phase: PlannedPhase,
    batch: BatchPlan,
    state: dict[str, float],
    row_bytes: float,
    fitting: int,
) -> None:
    """UserError where the micro-batch does not fit, with what would."""
    if batch.micro_batch_size <= fitting:
        return
    said = (
        f"{phase.name}: {sum(state.values()) / 1e9:.1f} GB of weights, gradients and moments and"
        f" {batch.micro_batch_size * row_bytes / 1e9:.1f} GB for {batch.micro_batch_size:,} rows"
    )
    expected = f"at most the {machine.usable_bytes / 1e9:.1f} GB that a rank may fill of {machine.gpu.name}"
    if fitting < 1:
        fix = (
            "set more planner.gpus, runtime.zero_stage=1, runtime.activation_checkpointing=true or another planner.gpu"
        )
    elif runtime.micro_batch_tokens is not None:
        fix = f"set runtime.micro_batch_tokens={int(fitting * phase.mean_length)}, or runtime.micro_batch_size=auto"
    else:
        fix = f"set runtime.micro_batch_size.{phase.name}={fitting}, or runtime.micro_batch_size=auto"
    raise UserError(found=said, expected=expected, fix=fix)


def computes_padding(runtime: RuntimeSettings, gpu: Gpu) -> bool:
    """As model/encoder.py chooses: auto is varlen but where a GPU has no kernel for it."""
    if runtime.attention == "auto":
        return not gpu.is_cpu and (runtime.precision == "fp32" or not gpu.has_flash)
    return runtime.attention != "varlen"


def squared_length(phase: PlannedPhase) -> float:
    return mean_squared_length(phase.mean_length, phase.max_seq_length)


def rank_of(machine: Machine, peak: float) -> Rank:
    return Rank(peak, machine.gpu.memory_gbytes * 1e9, machine.compute.value)


def network_of(machine: Machine) -> Network:
    return Network(
        machine.gpus,
        machine.gpus_per_node,
        link=machine.gpu.link_gbytes * 1e9,
        node=machine.network_gbit * GBIT,
        efficiency=machine.network.value,
    )


def machine_of(
    gpu: Gpu,
    runtime: RuntimeSettings,
    efficiencies: Efficiencies,
    *,
    gpus: int,
    gpus_per_node: int | None = None,
    network_gbit: float | None = None,
    watts: float | None = None,
    price_per_gpu_hour: float | None = None,
    compute: float | None = None,
    network: float | None = None,
    measured: Measured | None = None,
) -> Machine:
    """The table's figures where others are not given; raises UserError."""
    if measured is not None:
        chosen = Chosen(measured.reached / measured.peak, f"measured: {measured.what}")
    elif compute is not None:
        chosen = Chosen(compute, "planner.compute_efficiency")
    else:
        precision = precision_of_products(runtime)
        peak_flops(gpu, precision)
        chosen = compute_efficiency(gpu, precision, efficiencies)
    calibrated = Chosen(efficiencies.network[gpu.generation], source_of_network(gpu.generation))
    return Machine(
        gpu,
        gpus,
        gpus_per_node or gpu.gpus_per_node,
        network_gbit or gpu.network_gbit,
        watts or gpu.watts,
        price_per_gpu_hour,
        chosen,
        calibrated if network is None else Chosen(network, "planner.network_efficiency"),
        measured,
    )
