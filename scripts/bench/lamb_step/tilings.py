"""Other tilings of the fused kernels than their own, to be measured beside it: BLOCKxWARPSxCHUNK."""

import argparse

from bert_lamb.optim.fused_tables import Tiling


def tiling_of(text: str) -> Tiling:
    """ "512x4x4096" is blocks of 512 elements in 4 warps, and chunks of 4,096; raises ValueError for what cannot be."""
    block, num_warps, chunk = map(int, text.split("x"))
    if any(number < 1 or number & (number - 1) for number in (block, num_warps)):
        raise ValueError(f"block {block} and warps {num_warps}: expected powers of two")
    return Tiling(block, num_warps, (chunk,))


def checked(text: str) -> str:
    """The type of an argument that names a tiling."""
    try:
        tiling_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r} ({error}); expected BLOCKxWARPSxCHUNK") from None
    return text
