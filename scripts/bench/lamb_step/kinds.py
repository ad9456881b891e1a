"""Which optimizers are measured, and how many bytes a step of each must move."""

from dataclasses import dataclass

from bert_lamb.optim import Lamb, Lars
from lamb_step import peers
from lamb_step.ours import ours
from lamb_step.tensors import FP32_BYTES, Build, Tensors


@dataclass(frozen=True)
class Kind:
    """An implementation of an optimizer.

    formula: "lamb" or "lars" if its step must equal that of `reference`, else None.
    forms: those it is correct in; optimizers with one trust ratio for each tensor are wrong on flat ones.
    is_ours: it gets parameters and gradients of the dtypes that were asked for; others get fp32 of both.
    """

    title: str
    build: Build
    formula: str | None
    forms: tuple[str, ...] = ("list", "flat")
    is_ours: bool = False


KINDS = {
    "lamb-reference": Kind("our Lamb reference", ours(Lamb, "reference"), "lamb", is_ours=True),
    "lamb-foreach": Kind("our Lamb foreach", ours(Lamb, "foreach"), "lamb", is_ours=True),
    "lamb-fused": Kind("our Lamb fused", ours(Lamb, "fused"), "lamb", is_ours=True),
    "lars-foreach": Kind("our Lars foreach", ours(Lars, "foreach"), "lars", is_ours=True),
    "lars-fused": Kind("our Lars fused", ours(Lars, "fused"), "lars", is_ours=True),
    "adamw-foreach": Kind("torch AdamW foreach", peers.torch_adamw("foreach"), None),
    "adamw-fused": Kind("torch AdamW fused", peers.torch_adamw("fused"), None),
    "timm": Kind("timm Lamb", peers.timm_lamb, "lamb", forms=("list",)),
    # Another formula: it corrects the step size for bias, and clips ratios.
    "deepspeed": Kind("DeepSpeed FusedLamb", peers.deepspeed_lamb, None, forms=("list",)),
    "apex": Kind("apex FusedLAMB", peers.apex_lamb, "lamb", forms=("list",)),
    # Ignoring which parameters a partition consists of is wrong; it shows what exactness adds.
    "unaware-foreach": Kind(
        "our Lamb foreach, unaware", ours(Lamb, "foreach", knows_segments=False), None, ("flat",), is_ours=True
    ),
    "unaware-fused": Kind(
        "our Lamb fused, unaware", ours(Lamb, "fused", knows_segments=False), None, ("flat",), is_ours=True
    ),
}


def counted_bytes(kind: str, tensors: Tensors, *, reads_norm: bool) -> int | None:
    """Bytes a step must read and write, over all parameters; only for our fused optimizers and torch's fused AdamW.

    Gradients have g bytes; bf16 and fp16 parameters in form "list", which are a copy of their masters, c bytes:

        reads_norm           g                            the gradients' norm, for clipping or skipping
        Lamb, adapted        g + w 4 + m 8 + v 8          pass 1: moments and norms
                             w 8 + m 4 + v 4 + c          pass 3: the direction again, and the update
        Lamb, not adapted    g + w 8 + m 8 + v 8 + c      one pass
        Lars, adapted        g + w 4 + m 8, then w 8 + m 4 + c
        Lars, not adapted    g + w 8 + m 8 + c
        torch's AdamW        4 + w 8 + m 8 + v 8          always given fp32 gradients

    What is per parameter and not per element (norms, tables) is left out.
    """
    once, both = FP32_BYTES, 2 * FP32_BYTES
    if kind == "adamw-fused":
        return sum(group.numel for group in tensors.groups) * (once + 3 * both)
    name, _, implementation = kind.partition("-")
    if implementation != "fused":
        return None
    num_moments = 1 if name == "lars" else 2
    g, copy = tensors.grad_bytes, tensors.copy_bytes
    norm = g if reads_norm else 0
    pass_1 = g + once + num_moments * both
    pass_3 = both + num_moments * once + copy
    in_one = g + both + num_moments * both + copy
    return sum(group.numel * (norm + (pass_1 + pass_3 if group.adapt else in_one)) for group in tensors.groups)
