"""Run under torchrun: `bert-lamb vision` on small images in every engine; usage: vision_worker.py FOLDER."""

import sys
from pathlib import Path

from bert_lamb.cli import main as cli
from tests.vision.material import PLAIN, TINY_RESNET

ENGINES = {
    "zero1": ("runtime.engine=deepspeed", "runtime.zero_stage=1"),
    "zero3": ("runtime.engine=deepspeed", "runtime.zero_stage=3"),
    "zero1-bf16": ("runtime.engine=deepspeed", "runtime.zero_stage=1", "runtime.precision=bf16"),
    "fsdp": ("runtime.engine=fsdp",),
    "fsdp-bf16": ("runtime.engine=fsdp", "runtime.precision=bf16"),
}
WORDS = (*PLAIN, *TINY_RESNET, "optimizer.eps=1e-3", "num_epochs=4", "runtime.device=cpu")


def words(folder, name, *more):
    return ["vision", f"data={folder / 'images.npz'}", f"run_dir={folder / name}", *WORDS, *more]


def main():
    folder = Path(sys.argv[1])
    for name, of_engine in ENGINES.items():
        assert cli.main(words(folder, name, *of_engine)) == 0, name
    # What one process began.
    assert cli.main(words(folder, "begun", *ENGINES["zero1"], "if_exists=resume")) == 0


if __name__ == "__main__":
    main()
