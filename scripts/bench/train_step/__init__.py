"""Sequences a second of whole training steps: ours beside transformers' Trainer and a plain loop, on the same rows.

    python scripts/bench/train_step --shards SHARDS    # a small BERT on a CPU, lengths 128 and 512
    python scripts/bench/train_step --preset gpu       # BERT-Base and Large on a GPU, in bf16, on random rows

All candidates take the same global batches in turns: a drift of the machine affects all of them alike. README.md
explains candidates and columns.
"""
