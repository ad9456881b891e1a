"""Near duplicates by MinHash, computed by `datasketch` (an extra: pip install 'bert-lamb[near-duplicates]').

Documents are sets of runs of five words. Their signatures are made in the workers; which documents are near an earlier
one is decided in one pass over all of them (Broder 1997; locality-sensitive hashing as in Leskovec et al., Mining of
Massive Datasets, chapter 3). The pass keeps the signatures that were not dropped in memory: about 5 kB a document.
"""

from collections.abc import Sequence

import numpy as np

from bert_lamb.errors import UserError

NUM_PERMUTATIONS = 128
SEED = 1
SCHEME = "affine32"  # of hashing; one that is written down, since signatures of two schemes cannot be compared
WORDS_OF_SHINGLE = 5
WEIGHTS = (0.1, 0.9)  # of false candidates and of missed ones: every candidate is compared, a missed one is lost


def require_datasketch() -> None:
    """UserError unless the extra is installed."""
    try:
        import datasketch  # noqa: F401
    except ImportError as error:
        raise UserError(
            found="no datasketch package",
            expected="it, to find near duplicates",
            fix="pip install 'bert-lamb[near-duplicates]', or set cleaning.duplicates=exact",
        ) from error


def signature(text: str) -> bytes:
    """The MinHash of a text, NUM_PERMUTATIONS uint32 in little-endian."""
    from datasketch import MinHash

    words = text.lower().split()
    shingles = {
        " ".join(words[start : start + WORDS_OF_SHINGLE]).encode()
        for start in range(max(1, len(words) - WORDS_OF_SHINGLE + 1))
    }
    minhash = MinHash(num_perm=NUM_PERMUTATIONS, seed=SEED, scheme=SCHEME)
    minhash.update_batch(sorted(shingles))
    values: np.ndarray = minhash.hashvalues
    return values.astype("<u4").tobytes()


def near_duplicates(signatures: Sequence[bytes], *, threshold: float) -> np.ndarray:
    """[documents] bool, whether a document resembles an earlier one that is kept.

    threshold: of the Jaccard similarity, as estimated by the signatures.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=NUM_PERMUTATIONS, weights=WEIGHTS)
    is_near = np.zeros(len(signatures), np.bool_)
    kept: dict[int, MinHash] = {}
    for number, packed in enumerate(signatures):
        values = np.frombuffer(packed, "<u4")
        minhash = MinHash(num_perm=NUM_PERMUTATIONS, seed=SEED, hashvalues=values, scheme=SCHEME)
        if any(minhash.jaccard(kept[candidate]) >= threshold for candidate in index.query(minhash)):
            is_near[number] = True
        else:
            kept[number] = minhash
            index.insert(number, minhash)
    return is_near
