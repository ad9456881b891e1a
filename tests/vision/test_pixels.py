"""Images as the network sees them. Truth: numpy's slices, PIL on a part cut by hand, the bounds of the random part."""

import numpy as np
import pytest
import torch
from PIL import Image

from bert_lamb.vision.pixels import AREA_SHARES, ASPECTS, centre, random_box, shown_image, training_image
from bert_lamb.vision.settings import PixelSettings

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (40, 60, 3)).astype(np.uint8)
CROPS = PixelSettings(16, "crop_flip", [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
PLAIN = PixelSettings(16, "none", [0.5], [0.25])


def test_an_image_of_the_right_size_is_scaled_only():
    image = IMAGE[:16, :16]
    for found in (training_image(image, PLAIN, seed=1, epoch=0, number=0), shown_image(image, PLAIN)):
        np.testing.assert_allclose(found.numpy(), (image.transpose(2, 0, 1) / 255 - 0.5) / 0.25, atol=1e-6)


def test_a_test_image_is_the_middle_of_the_resized():
    """16 of the shorter side's round(16 * 256 / 224) = 18 pixels."""
    smaller = np.asarray(Image.fromarray(IMAGE).resize((27, 18), Image.Resampling.BILINEAR))
    middle = smaller[1:17, 5:21].transpose(2, 0, 1) / 255
    mean, deviation = (np.reshape(one, (3, 1, 1)) for one in (CROPS.pixel_mean, CROPS.pixel_std))
    np.testing.assert_allclose(shown_image(IMAGE, CROPS).numpy(), (middle - mean) / deviation, atol=1e-6)
    assert centre(IMAGE[:, :, :1], 16, 16).shape == (16, 16, 1)


def test_a_random_part_is_inside_and_of_the_shares_that_it_should_be():
    areas, aspects = [], []
    for _ in range(500):
        left, top, right, bottom = random_box(40, 60, RANDOM.random(40).astype(np.float32))
        assert 0 <= left < right <= 60
        assert 0 <= top < bottom <= 40
        areas.append((right - left) * (bottom - top) / 2400)
        aspects.append((right - left) / (bottom - top))
    assert AREA_SHARES[0] - 0.02 < min(areas) < 0.15
    assert 0.8 < max(areas) <= 1
    assert ASPECTS[0] - 0.1 < min(aspects) < 0.85  # of small parts, whose sides are whole numbers
    assert 1.2 < max(aspects) < ASPECTS[1] + 0.1
    assert random_box(10, 100, np.zeros(40, np.float32) + 0.999) == (43, 0, 56, 10)  # no try is inside


def test_augmentation_depends_on_seed_epoch_and_image_alone():
    first = training_image(IMAGE, CROPS, seed=1, epoch=2, number=3)
    assert torch.equal(first, training_image(IMAGE, CROPS, seed=1, epoch=2, number=3))
    for key in ({"seed": 2}, {"epoch": 3}, {"number": 4}):
        assert not torch.equal(first, training_image(IMAGE, CROPS, **{"seed": 1, "epoch": 2, "number": 3, **key}))


def test_every_second_image_is_its_mirror_image(monkeypatch):
    monkeypatch.setattr("bert_lamb.vision.pixels.random_box", lambda *_: (0, 0, 60, 40))
    whole = PixelSettings(16, "crop_flip", [0.0], [1.0])
    plain = np.asarray(Image.fromarray(IMAGE).resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    num_mirrored = 0
    for number in range(200):
        found = training_image(IMAGE, whole, seed=1, epoch=0, number=number).numpy()
        is_mirrored = not np.allclose(found, plain, atol=1e-6)
        num_mirrored += is_mirrored
        np.testing.assert_allclose(found[:, :, ::-1] if is_mirrored else found, plain, atol=1e-6)
    assert num_mirrored == pytest.approx(100, abs=30)
