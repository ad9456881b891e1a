"""Randomness as a pure function of its key: counter-based, vectorized, the same on every machine.

A key is a tuple of integers folded into 64 bits; a stream is that key and a counter. No generator has a state.
"""

import numpy as np
from numpy.typing import NDArray

UInt64s = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def mix(values: UInt64s) -> UInt64s:
    """A bijection of 64-bit words that leaves no visible pattern.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
    """
    return _mix_in_place(values.astype(np.uint64, copy=True))


def _mix_in_place(words: UInt64s) -> UInt64s:
    shifted = np.right_shift(words, np.uint64(30))
    words ^= shifted
    words *= _MULTIPLIER_1
    words ^= np.right_shift(words, np.uint64(27), out=shifted if shifted.ndim else None)
    words *= _MULTIPLIER_2
    words ^= np.right_shift(words, np.uint64(31), out=shifted if shifted.ndim else None)
    return words


def fold(*parts: "int | UInt64s") -> UInt64s:
    """One 64-bit key from several parts; arrays broadcast. Different tuples give (practically) different keys."""
    key = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            word = np.asarray(part, dtype=np.uint64) if not isinstance(part, int) else np.uint64(part % 2**64)
            key = mix((key + _GOLDEN) ^ mix(np.asarray(word + _GOLDEN)))
    return key


def random_bits(keys: UInt64s, counters: UInt64s) -> UInt64s:
    """64 random bits for each (key, counter), of which at least one is an array; shapes broadcast."""
    return _mix_in_place(np.asarray(keys + (counters + np.uint64(1)) * _GOLDEN))


def to_unit(bits: UInt64s) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1) from the upper 24 bits, exact in float32."""
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
