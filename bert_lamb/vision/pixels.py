"""From a stored image to what the network sees: cut, resized, mirrored, scaled; keyed by (seed, epoch, image)."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bert_lamb.sampling.keyed_random import fold, random_bits, to_unit
from bert_lamb.vision.settings import PixelSettings

Pixels = NDArray[np.uint8]  # [height, width, C]

NUM_TRIES = 10  # to cut a part that is inside the image
AREA_SHARES, ASPECTS = (0.08, 1.0), (3 / 4, 4 / 3)  # of the part: least and most; width / height
SHOWN_SHARE = 224 / 256  # of the shorter side that a test image keeps, with augmentation=crop_flip
DRAWS_A_TRY = 4


def training_image(image: Pixels, settings: PixelSettings, *, seed: int, epoch: int, number: int) -> Tensor:
    """[C, S, S] fp32 of an image, the same for the same (seed, epoch, number of the image).

    crop_flip: a part of 8 to 100 % of the area and of an aspect of 3/4 to 4/3, resized to S x S, mirrored every second
    time; the middle of the image after ten parts that were not inside. Source: Szegedy et al. 2015, "Going deeper with
    convolutions", section 6, in the form that torchvision's RandomResizedCrop has.
    """
    if settings.augmentation == "none":
        return scaled(centre(image, settings.image_size, settings.image_size), settings)
    key = fold(seed, epoch, number)
    draws = to_unit(random_bits(key, np.arange(NUM_TRIES * DRAWS_A_TRY + 1, dtype=np.uint64)))
    box = random_box(image.shape[0], image.shape[1], draws[1:])
    cut = resized(image, (settings.image_size, settings.image_size), box)
    return scaled(cut[:, ::-1] if draws[0] < 0.5 else cut, settings)


def shown_image(image: Pixels, settings: PixelSettings) -> Tensor:
    """[C, S, S] fp32: the shorter side resized, then the middle."""
    size = settings.image_size
    shorter = size if settings.augmentation == "none" else round(size / SHOWN_SHARE)
    return scaled(centre(image, shorter, size), settings)


def random_box(height: int, width: int, draws: NDArray[np.float32]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a part of an image, from uniform numbers, four for each try."""
    for area_draw, aspect_draw, left_draw, top_draw in draws.reshape(-1, DRAWS_A_TRY).tolist():
        area = height * width * (AREA_SHARES[0] + (AREA_SHARES[1] - AREA_SHARES[0]) * area_draw)
        lowest, highest = map(math.log, ASPECTS)
        aspect = math.exp(lowest + (highest - lowest) * aspect_draw)
        part_width, part_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < part_width <= width and 0 < part_height <= height:
            left, top = int(left_draw * (width - part_width + 1)), int(top_draw * (height - part_height + 1))
            return left, top, left + part_width, top + part_height
    part_width = min(width, round(height * ASPECTS[1]))
    part_height = min(height, round(width / ASPECTS[0]))
    left, top = (width - part_width) // 2, (height - part_height) // 2
    return left, top, left + part_width, top + part_height


def centre(image: Pixels, shorter: int, size: int) -> Pixels:
    """The middle size x size of an image whose shorter side is resized to `shorter`."""
    height, width = image.shape[:2]
    if min(height, width) != shorter:
        share = shorter / min(height, width)
        image = resized(image, (max(shorter, round(height * share)), max(shorter, round(width * share))))
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def resized(image: Pixels, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> Pixels:
    """A part (left, top, right, bottom) of an image, or all of it, at another (height, width); bilinear."""
    shown = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    found = np.asarray(shown.resize(size[::-1], Image.Resampling.BILINEAR, box=box))
    return found[:, :, None] if found.ndim == 2 else found


def scaled(image: Pixels, settings: PixelSettings) -> Tensor:
    """[S, S, C] bytes -> [C, S, S] fp32, (share of the brightest - mean) / deviation by channel."""
    shares = image.astype(np.float32) / 255
    mean, deviation = (np.array(one, dtype=np.float32) for one in (settings.pixel_mean, settings.pixel_std))
    normalized = (shares - mean) / deviation
    return torch.from_numpy(np.ascontiguousarray(normalized.transpose(2, 0, 1), dtype=np.float32))
