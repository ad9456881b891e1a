"""The encoder over sequences laid end to end: how it is computed, packed or padded as transformers would be called.

Letters: T tokens of the micro-batch, B sequences, S the longest length, H hidden size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.bert.modeling_bert import BertModel

from bert_lamb.errors import UserError
from bert_lamb.model.attention import FLASH_CAPABILITY, VARLEN
from bert_lamb.model.dropout import replace_dropout
from bert_lamb.model.self_attention import fuse_self_attention

Attention = Literal["auto", "varlen", "sdpa", "eager"]


@dataclass(frozen=True)
class Execution:
    """How a model is computed; none of it changes what is computed beyond rounding, and the draws of dropout.

    attention: varlen, sdpa or eager, of choose_attention. has_whole_weights: False on a machine that gathers a weight
    only while the module it belongs to is called (ZeRO 3). compile: by torch.compile, each layer or the whole model.
    activation_checkpointing: layers keep their input alone and are computed again in the backward pass.
    """

    attention: str = "varlen"
    has_whole_weights: bool = True
    compile: Literal["layers", "model"] | None = None
    activation_checkpointing: bool = False


def choose_execution(
    device: torch.device,
    *,
    precision: str,
    attention: Attention,
    has_whole_weights: bool,
    compile: Literal["layers", "model"] | None,
    activation_checkpointing: bool,
) -> Execution:
    """What is asked for, on this device; raises UserError for what it cannot do."""
    return Execution(
        choose_attention(attention, device, precision), has_whole_weights, compile, activation_checkpointing
    )


def choose_attention(asked_for: Attention, device: torch.device, precision: str) -> str:
    """varlen, sdpa or eager; auto is varlen, but sdpa on a GPU where varlen would be one kernel a sequence.

    varlen computes no padding; sdpa and eager are transformers' own on rows padded to the stage's length. Raises
    UserError where varlen is asked for and has no kernel.
    """
    has_kernel = device.type != "cuda" or (
        precision != "fp32" and torch.cuda.get_device_capability(device) >= FLASH_CAPABILITY
    )
    if asked_for == "auto":
        return "varlen" if has_kernel else "sdpa"
    if asked_for == "varlen" and not has_kernel:
        raise UserError(
            found=f"runtime.attention=varlen with {precision} on {torch.cuda.get_device_name(device)}",
            expected="bf16 or fp16 on a GPU of compute capability 8.0 or more, or a CPU",
            fix="set runtime.attention=auto or runtime.precision=bf16",
        )
    return asked_for


def prepare(model: nn.Module, bert: BertModel, execution: Execution) -> None:
    """Make `model`, whose encoder is `bert`, run as `execution` says; parameters and their names stay as they are."""
    bert.config._attn_implementation = VARLEN if execution.attention == "varlen" else execution.attention
    replace_dropout(bert)
    if execution.has_whole_weights:
        fuse_self_attention(bert)
    if execution.activation_checkpointing:
        # The second name is the older one, of which later versions of transformers warn.
        enable = getattr(bert, "activation_checkpointing_enable", None) or bert.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    # The number of tokens differs from one micro-batch to the next, so shapes are symbols from the start.
    if execution.compile == "model":
        model.compile(dynamic=True)
    elif execution.compile == "layers":
        for layer in bert.encoder.layer:
            layer.compile(dynamic=True)


def encode(
    bert: BertModel,
    input_ids: Tensor,  # [T] int64
    token_type_ids: Tensor,  # [T] int64
    position_ids: Tensor,  # [T] int64, from 0 in each sequence
    cu_seqlens: Tensor,  # [B + 1] int32: sequence i is tokens cu_seqlens[i]..cu_seqlens[i + 1] - 1
    max_length: int,  # S; no sequence is longer
) -> Tensor:
    """[T, H] the last hidden states of every token. Nothing here waits for the device but transformers' own masks."""
    if bert.config._attn_implementation == VARLEN:
        hidden = bert.embeddings(input_ids[None], token_type_ids[None], position_ids[None])
        encoded = bert.encoder(hidden, cu_seqlens=cu_seqlens, max_length=max_length)
        return encoded.last_hidden_state[0]  # type: ignore[no-any-return]
    num_rows = len(cu_seqlens) - 1
    places = padded_places(cu_seqlens, position_ids, max_length)
    ids, types, is_token = (
        values.new_zeros(num_rows * max_length).index_copy(0, places, values).view(num_rows, max_length)
        for values in (input_ids, token_type_ids, torch.ones_like(input_ids))
    )
    hidden = bert.embeddings(ids, types)
    mask = create_bidirectional_mask(config=bert.config, inputs_embeds=hidden, attention_mask=is_token)
    encoded = bert.encoder(hidden, attention_mask=mask)
    return encoded.last_hidden_state.flatten(0, 1).index_select(0, places)  # type: ignore[no-any-return]


def first_states(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """[B, 1, H] the states of each sequence's first token, as transformers' pooler takes them."""
    return hidden.index_select(0, cu_seqlens[:-1])[:, None]


def padded_places(cu_seqlens: Tensor, position_ids: Tensor, max_length: int) -> Tensor:
    """[T] int64 where each token is in the flattened [B * S] of rows padded to S = max_length."""
    row_starts = torch.arange(len(cu_seqlens) - 1, device=position_ids.device) * max_length
    return position_ids + row_starts.repeat_interleave(cu_seqlens.diff(), output_size=len(position_ids))
