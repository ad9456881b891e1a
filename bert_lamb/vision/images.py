"""Where images come from: an .npz, folders of classes, or Parquet; found, checked and identified before the first step.

Letters: N images, C channels (1 or 3).
"""

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bert_lamb.errors import UserError
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.vision.pixels import Pixels

EXPECTED = "an .npz, a folder train/CLASS/IMAGE and test/CLASS/IMAGE, or one with train*.parquet and test*.parquet"
FIX = "set data"
SPLITS = {"train": ("train",), "test": ("test", "val", "validation")}  # and the names that each may have
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # in lower case
NOT_READABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # of PIL, for a file that is damaged
MAX_CLASSES = 1_000_000


class Images(Protocol):
    """Labelled images by number."""

    labels: NDArray[np.int64]  # [N]

    def image(self, number: int) -> Pixels:
        """[height, width, C] uint8; raises UserError, with its file, for one that cannot be decoded."""


@dataclass(frozen=True)
class ImageData:
    """Training and test images. classes: names, by label. sha256: of what `identity` names."""

    train: Images
    test: Images
    num_channels: int
    classes: list[str]
    identity: str
    sha256: str


class StoredImages:
    """An array [N, height, width, C] in memory."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.images, self.labels = images, labels

    def image(self, number: int) -> Pixels:
        image: Pixels = self.images[number]
        return image


class ImageFiles:
    """Files of images, decoded when they are asked for."""

    def __init__(self, files: Sequence[Path], labels: Sequence[int]) -> None:
        self.files, self.labels = files, np.array(labels, dtype=np.int64)

    def image(self, number: int) -> Pixels:
        with undamaged(str(self.files[number])):
            return decoded(self.files[number])


class ImageRows:
    """Rows of a data set of `datasets` whose image column holds files, not decoded."""

    def __init__(self, rows: Any, column: str, labels: NDArray[np.int64], name: str) -> None:
        self.rows, self.column, self.labels, self.name = rows, column, labels, name

    def image(self, number: int) -> Pixels:
        with undamaged(f"row {number} of {self.name}"):
            return decoded(io.BytesIO(self.rows[number][self.column]["bytes"]))


def read_images(data: Path) -> ImageData:
    """What `data` names; raises UserError for what cannot be used."""
    if data.suffix == ".npz":
        return from_npz(data)
    if not data.is_dir():
        raise UserError(found=f"{data}, which is no folder and no .npz", expected=EXPECTED, fix=FIX)
    return from_parquet(data) if any(data.glob("*.parquet")) else from_folders(data)


def from_npz(file: Path) -> ImageData:
    """train_images, test_images: uint8 [N, height, width] or [N, height, width, C]; train_labels, test_labels: [N]."""
    names = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
    expected = f"an .npz with {', '.join(names)}, without pickles"
    if file.is_file() and not zipfile.is_zipfile(file):  # a lone array or a pickle, which np.load knows too
        raise UserError(found=f"{file}, which is no zip archive as an .npz is", expected=expected, fix=FIX)
    try:
        with np.load(file, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in names}
        sha256 = file_sha256(file)
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(found=f"{file} that cannot be read ({said})", expected=expected, fix=FIX) from error
    sets = {}
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        images = images[..., None] if images.ndim == 3 else images
        is_right = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3) and images.size > 0
        if not is_right:
            raise UserError(
                found=f"{split}_images of {images.dtype} {list(images.shape)} in {file}",
                expected="uint8 [N, height, width] or [N, height, width, C] with 1 or 3 channels",
                fix=FIX,
            )
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise UserError(
                found=f"{split}_labels of {labels.dtype} {list(labels.shape)} for {len(images):,} images in {file}",
                expected="a whole number for each image",
                fix=FIX,
            )
        sets[split] = StoredImages(images, labels.astype(np.int64))
    channels = {split: one.images.shape[3] for split, one in sets.items()}
    if channels["train"] != channels["test"]:
        raise UserError(found=f"channels {channels} in {file}", expected="as many in both sets", fix=FIX)
    num_classes = num_classes_of(sets["train"].labels, str(file))
    check_labels(sets["test"].labels, num_classes, str(file))
    classes = [str(label) for label in range(num_classes)]
    return ImageData(sets["train"], sets["test"], channels["train"], classes, "the file's bytes", sha256)


def from_folders(folder: Path) -> ImageData:
    """train/CLASS/IMAGE and test/CLASS/IMAGE (or val, validation); classes by name, images as RGB."""
    found: dict[str, ImageFiles] = {}
    classes: list[str] = []
    for split, names in SPLITS.items():
        root = next((folder / name for name in names if (folder / name).is_dir()), None)
        if root is None:
            raise UserError(found=f"no {' or '.join(names)} folder in {folder}", expected=EXPECTED, fix=FIX)
        of_split = sorted(path.name for path in root.iterdir() if path.is_dir())
        classes = classes or of_split
        strangers = sorted(set(of_split) - set(classes))
        if strangers:
            raise UserError(
                found=f"class {strangers[0]} in {root}", expected=f"the classes of train: {len(classes):,}", fix=FIX
            )
        files = [
            (path, classes.index(name))
            for name in of_split
            for path in sorted((root / name).rglob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        if not files:
            raise UserError(found=f"no images in {root}", expected=f"CLASS/*{', *'.join(SUFFIXES)}", fix=FIX)
        found[split] = ImageFiles(*zip(*files, strict=True))
    listing = [(str(path.relative_to(folder)), path.stat().st_size) for one in found.values() for path in one.files]
    return ImageData(found["train"], found["test"], 3, classes, "names and sizes of the files", hash_of(listing))


def from_parquet(folder: Path) -> ImageData:
    """train*.parquet and test*.parquet (or val, validation): columns of images and of labels, as `datasets` has."""
    files = {
        split: sorted(path for name in names for path in folder.glob(f"{name}*.parquet"))
        for split, names in SPLITS.items()
    }
    for split, of_split in files.items():
        if not of_split:
            raise UserError(found=f"no {split}*.parquet in {folder}", expected=EXPECTED, fix=FIX)
    rows = read_parquet(folder, files)
    found: dict[str, ImageRows] = {}
    num_classes, classes = 0, []
    for split, of_split in rows.items():
        where = f"{split}*.parquet in {folder}"
        columns = list(of_split.column_names)
        column = next((name for name in ("image", "img") if name in columns), None)
        label = next((name for name in ("label", "fine_label") if name in columns), None)
        if column is None or label is None:
            raise UserError(found=f"columns {', '.join(columns)} in {where}", expected="image and label", fix=FIX)
        labels = np.asarray(of_split.with_format(None)[label][:])
        if labels.dtype.kind not in "iu":
            raise UserError(found=f"{label} of {labels.dtype} in {where}", expected="whole numbers", fix=FIX)
        names = getattr(of_split.features[label], "names", None)
        if split == "train":
            num_classes = len(names) if names else num_classes_of(labels, where)
            classes = list(names) if names else [str(number) for number in range(num_classes)]
        check_labels(labels, num_classes, where)
        found[split] = ImageRows(of_split, column, labels.astype(np.int64), where)
    listing = [(path.name, path.stat().st_size) for one in files.values() for path in one]
    return ImageData(found["train"], found["test"], 3, classes, "names and sizes of the files", hash_of(listing))


def read_parquet(folder: Path, files: dict[str, list[Path]]) -> dict[str, Any]:
    """Rows by split, mapped from the cache that `datasets` makes of them; images stay encoded."""
    import datasets

    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # our error says it
    try:
        rows = datasets.load_dataset("parquet", data_files={name: list(map(str, of)) for name, of in files.items()})
        for split in files:
            for name in ("image", "img"):
                if name in rows[split].column_names:
                    rows[split] = rows[split].cast_column(name, datasets.Image(decode=False))
    except Exception as error:  # of any library below it
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            found=f"Parquet in {folder} that cannot be read ({said})", expected=EXPECTED, fix=FIX
        ) from error
    return {split: rows[split] for split in files}


def decoded(source: Path | io.BytesIO) -> Pixels:
    """An image as RGB, [height, width, 3]."""
    with Image.open(source) as opened:
        return np.asarray(opened.convert("RGB"))


@contextmanager
def undamaged(what: str) -> Iterator[None]:
    """A UserError that says which image cannot be decoded inside."""
    try:
        yield
    except (*NOT_READABLE, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            found=f"{what} that cannot be decoded ({said})", expected="an image", fix="repair it"
        ) from error


def num_classes_of(labels: NDArray[Any], where: str) -> int:
    """One more than the largest label."""
    check_labels(labels, MAX_CLASSES, where)
    return max(int(labels.max()) + 1, 2)


def check_labels(labels: NDArray[Any], num_classes: int, where: str) -> None:
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise UserError(found=f"label {outside[0]} in {where}", expected=f"0 to {num_classes - 1:,}", fix=FIX)


def hash_of(listing: Sequence[tuple[str, int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(listing)).encode()).hexdigest()
