"""Small images that can be learnt, in each form that `bert-lamb vision` reads, and words for small networks."""

import io
import json

import numpy as np
from PIL import Image

NUM_TRAIN, NUM_TEST, NUM_CLASSES = 48, 20, 3
TINY_RESNET = (
    *("image_model=resnet50", "image_model.embedding_size=8", "image_model.hidden_sizes=[8,16]"),
    *("image_model.depths=[1,1]", "image_model.layer_type=basic", "ghost_batch_size=4"),
)
LENET = ("image_model=lenet",)
PLAIN = (
    *("image_size=12", "global_batch_size=16", "num_epochs=2", "peak_lr=2e-2", "runtime.num_threads=1"),
    *("runtime.micro_batch_size.vision=8", "runtime.peak_tflops=1", "checkpoint.interval_minutes=0"),
)


def images(num_channels=3, size=12, seed=0):
    """The four arrays of an .npz: noise with a bright third of the rows, which says the class."""
    random = np.random.default_rng(seed)
    arrays = {}
    for split, number in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        labels = np.arange(number) % NUM_CLASSES
        pixels = random.integers(0, 100, (number, size, size, num_channels))
        for image, label in zip(pixels, labels, strict=True):
            image[label * size // 3 : (label + 1) * size // 3] += 150
        arrays |= {f"{split}_images": pixels.astype(np.uint8), f"{split}_labels": labels}
    return arrays


def write_npz(file, **changes):
    np.savez(file, **{**images(), **changes})
    return file


def write_folders(folder):
    """The same images as files, which are read in another order."""
    arrays = images()
    for split in ("train", "test"):
        for number, (image, label) in enumerate(zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)):
            of_class = folder / split / f"class{label}"
            of_class.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(of_class / f"{number:03}.png")
    return folder


def write_parquet(folder):
    """The same images as `datasets` writes them."""
    import datasets

    folder.mkdir()
    arrays = images()
    for split in ("train", "test"):
        files = []
        for image in arrays[f"{split}_images"]:
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "png")
            files.append({"bytes": stream.getvalue(), "path": None})
        names = [f"class{label}" for label in range(NUM_CLASSES)]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        rows = {"image": files, "label": arrays[f"{split}_labels"]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-0.parquet")
    return folder


def metrics_of(run, kind):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]
