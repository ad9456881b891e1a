"""How a run is computed, as plain values; what of it needs no machine to be known. No torch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bert_lamb.engine.launch import Process

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class RuntimeSettings:
    """How a run is computed; nothing here changes the outcome beyond rounding. See config/runtime.py for each."""

    engine: Literal["torch", "deepspeed", "fsdp"]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    zero_stage: int
    offload_optimizer: bool
    micro_batch_size: dict[str, int] | Literal["auto"]  # sequences, by stage: at most
    num_threads: int | None
    verify_shards: bool
    loader_workers: int
    peak_tflops: float | None
    profile: int
    attention: Literal["auto", "varlen", "sdpa", "eager"] = "auto"
    compile: Literal[False, "auto", "layers", "model"] = False
    activation_checkpointing: bool = False
    micro_batch_tokens: int | None = None  # tokens: at most, on average
    tf32: bool = False
    collective_timeout_seconds: float = 300.0
    stop_after_minutes: float | None = None
    deepspeed_overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def has_whole_weights(self) -> bool:
        """Whether all weights are at hand during a forward pass; ZeRO 3 gathers each while its own module is called."""
        return not (self.engine == "deepspeed" and self.zero_stage == 3)

    def compiled_on(self, device_type: str) -> Literal["layers", "model"] | None:
        """What torch.compile is to take on cpu or cuda; auto: the layers on a GPU in half precision.

        There it was measured to pay. Not in ZeRO 3, which gathers weights module by module.
        """
        if self.compile != AUTO:
            return self.compile or None
        pays = device_type == "cuda" and self.precision != "fp32" and self.has_whole_weights
        return "layers" if pays else None

    def of_model(self, device_type: str) -> dict[str, Any]:
        """What a model on cpu or cuda has to know of it, as `choose_execution` takes it."""
        return {
            "precision": self.precision,
            "attention": self.attention,
            "has_whole_weights": self.has_whole_weights,
            "compile": self.compiled_on(device_type),
            "activation_checkpointing": self.activation_checkpointing,
        }

    def max_micro_batch_size(self, stage: str, *, mean_length: float) -> int:
        """Sequences per rank and micro-step of a stage: at most as given, and as micro_batch_tokens hold on average.

        1 where they are still to be found (auto).
        """
        if self.micro_batch_size == AUTO:
            return 1
        limits = [self.micro_batch_size[stage]] if stage in self.micro_batch_size else []
        if self.micro_batch_tokens is not None:
            limits.append(max(1, int(self.micro_batch_tokens / mean_length)))
        return min(limits)

    def describe(self, process: "Process") -> list[str]:
        """Lines for the start of a run."""
        machine = f"{self.engine}, {process.world_size} x {process.device.type}, {self.precision}"
        if self.engine == "deepspeed":
            machine += f", ZeRO stage {self.zero_stage}"
        lines = [f"machine  {machine}"]
        if self.deepspeed_overrides:
            lines.append(f"deepspeed_overrides {self.deepspeed_overrides}")
        return lines
