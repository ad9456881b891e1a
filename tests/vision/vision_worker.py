"""Run under torchrun: `bert-lamb vision` on small images in every engine; usage: vision_worker.py FOLDER."""

import sys
from pathlib import Path

from bert_lamb.cli.compose import compose
from bert_lamb.vision.command import vision
from tests.vision.material import PLAIN, TINY_RESNET

ENGINES = {
    "zero3": ("runtime.engine=deepspeed", "runtime.zero_stage=3"),
    "zero1-bf16": ("runtime.engine=deepspeed", "runtime.zero_stage=1", "runtime.precision=bf16"),
    "fsdp": ("runtime.engine=fsdp",),
}
WORDS = (*PLAIN, *TINY_RESNET, "optimizer.eps=1e-3", "num_epochs=4", "runtime.device=cpu")


def words(folder, name, *more):
    return ["vision", f"data={folder / 'images.npz'}", f"run_dir={folder / name}", *WORDS, *more]


def main():
    folder = Path(sys.argv[1])
    for name, of_engine in ENGINES.items():
        vision(compose("vision", words(folder, name, *of_engine)[1:]))
    # What one process began.
    vision(compose("vision", words(folder, "begun", *ENGINES["fsdp"], "if_exists=resume")[1:]))


if __name__ == "__main__":
    main()
