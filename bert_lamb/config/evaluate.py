"""`evaluate`: any BERT on held-out instances of any shards."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, check_if_positive, check_seed
from bert_lamb.config.pretrain import MaskingConfig, check_masking


@dataclass
class EvaluateConfig:
    """`bert-lamb evaluate`: masked-LM loss and accuracy, and the sentence task's, of any BERT on any shards."""

    model_dir: str = (
        MISSING  # an export or any Hugging Face BERT, a run (its newest checkpoint), or a checkpoint's folder
    )
    shards: str = MISSING  # folder made by `prepare`, with the model's vocabulary
    max_seq_length: int | None = None  # tokens; None: every length that the shards have
    split: str = "heldout"
    max_instances: int = 4_096  # from the start of the split, as in pretraining
    max_predictions_per_seq: int | None = None  # masked tokens at most; None: all that masking.mask_prob asks for
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    seed: int = 42  # of the masks; a run's own seed gives the masks of its held-out lines
    device: str = "auto"  # auto, cpu or cuda
    precision: str = "fp32"  # fp32 or bf16
    micro_batch_size: int = 32  # sequences


def check_evaluate(config: EvaluateConfig) -> Complaints:
    complaints = Complaints()
    names = ("max_seq_length", "max_instances", "max_predictions_per_seq", "micro_batch_size")
    check_if_positive(complaints, "", config, *names)
    check_seed(complaints, config.seed)
    complaints.extend(check_masking(config.masking))
    complaints.unless(config.split in ("train", "heldout"), "split", config.split, "train or heldout")
    complaints.unless(config.device in ("auto", "cpu", "cuda"), "device", config.device, "auto, cpu or cuda")
    complaints.unless(config.precision in ("fp32", "bf16"), "precision", config.precision, "fp32 or bf16")
    return complaints
