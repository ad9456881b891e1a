"""Floating-point operations of a BERT's forward and backward pass, by formula.

A multiplication and an addition are two. Only matrix products over real tokens count. Padding, recomputation, softmax,
LayerNorm, GELU and the optimizer do not, so that two ways of computing the same model have the same count. The backward
pass has two products for each of the forward pass: one for the inputs, one for the weights.

    in each layer  2 (4 H^2 + 2 H I) a token          24 H^2 where I = 4 H
                   4 l^2 H a sequence of length l     queries by keys, weights by values
    heads          2 H^2 + 2 H V a masked token       transform and vocabulary
                   2 H^2 + 4 H a sequence             pooler and the sentence task's two classes
                   4 H a token                        start and end of an answer
                   2 H^2 + 2 C H a sequence           pooler and the C classes of a text

Sources: Narayanan et al. 2021 (Megatron-LM, arXiv 2104.04473), appendix; Chowdhery et al. 2022 (PaLM, arXiv
2204.02311), appendix B, which calls this count, over time and a machine's peak, the model FLOPs utilization. Both take
sequences to be full, where the sum of squared lengths is tokens x length.

Letters: L layers, H hidden size, I intermediate size, V (padded) vocabulary, l length of a sequence.
"""

from bert_lamb.model.sizes import Sizes

FORWARD_AND_BACKWARD = 3  # in units of a forward pass


def pretraining_flops(
    config: Sizes,
    *,
    num_sequences: int,
    num_tokens: int,
    sum_squared_lengths: int,
    num_predictions: int,
    has_sentence_task: bool,
) -> int:
    """Forward and backward of the encoder and the heads; without a sentence task neither pooler nor classes count."""
    hidden = config.hidden_size
    heads = num_predictions * 2 * (hidden**2 + hidden * config.vocab_size)
    if has_sentence_task:
        heads += num_sequences * 2 * (hidden**2 + 2 * hidden)
    encoder = encoder_forward_flops(config, num_tokens=num_tokens, sum_squared_lengths=sum_squared_lengths)
    return FORWARD_AND_BACKWARD * (encoder + heads)


def question_answering_flops(config: Sizes, *, num_tokens: int, sum_squared_lengths: int) -> int:
    """Forward and backward of the encoder and the two scores of each token."""
    encoder = encoder_forward_flops(config, num_tokens=num_tokens, sum_squared_lengths=sum_squared_lengths)
    return FORWARD_AND_BACKWARD * (encoder + num_tokens * 4 * config.hidden_size)


def classification_flops(
    config: Sizes, *, num_sequences: int, num_tokens: int, sum_squared_lengths: int, num_classes: int
) -> int:
    """Forward and backward of the encoder, the pooler and the scores of each sequence's classes."""
    encoder = encoder_forward_flops(config, num_tokens=num_tokens, sum_squared_lengths=sum_squared_lengths)
    head = num_sequences * 2 * config.hidden_size * (config.hidden_size + num_classes)
    return FORWARD_AND_BACKWARD * (encoder + head)


def encoder_forward_flops(config: Sizes, *, num_tokens: int, sum_squared_lengths: int) -> int:
    """The layers alone; embeddings are looked up."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    linear = num_tokens * 2 * (4 * hidden**2 + 2 * hidden * intermediate)
    attention = sum_squared_lengths * 4 * hidden
    return int(config.num_hidden_layers * (linear + attention))
