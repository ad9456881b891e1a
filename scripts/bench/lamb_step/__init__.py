"""Time of one optimizer step over a model's tensors: ours beside PyTorch's, timm's, DeepSpeed's and NVIDIA apex's.

    python scripts/bench/lamb_step                                   # BERT-Large on a GPU, BERT-Base on a CPU
    python scripts/bench/lamb_step --params bf16 --grad-dtype bf16 --out scripts/bench/results/h100_bf16.json

All candidates of a form step on the same memory in turns: a drift of the machine affects all of them alike, and memory
holds one set of tensors. First each takes one step from the same fixed point. Its outcome is compared with that of
`reference`, and a candidate that differs is not timed. README.md explains the columns and lists the files.

Letters, in all files: w parameter, g gradient, m and v first and second moment.
"""
