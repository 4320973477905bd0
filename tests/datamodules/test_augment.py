from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from igpt.data import CROP, centre_crop_box, random_ints, resample, resized, rng_of
from igpt.data.imagefile import FILTER
from igpt.data.randomness import keys_of
from igpt_datamodules.augment import ShiftedImages, pad_crop_flip, random_crop_box

BIG = (500, 375)


def photos(scale=1.0):
    images = [Image.fromarray(image) for image in load_sample_images().images]
    return [image.resize((round(image.width * scale), round(image.height * scale)), FILTER) for image in images]


def published(image, shorter, left, top, resolution):
    """Resize, crop 224, down to R: the paper's steps, one after the other."""
    small = image.resize(resized(image.size, shorter), FILTER).crop((left, top, left + CROP, top + CROP))
    return np.asarray(small.resize((resolution, resolution), FILTER), float)


@pytest.mark.parametrize(("scale", "allowed"), [(1.0, 0.8), (0.6, 0.9), (0.3, 1.2), (0.15, 2.6)])
@pytest.mark.parametrize("resolution", [32, 48, 64])
def test_one_resample_of_the_source_is_resize_crop_and_downsize_within_a_measured_error(scale, allowed, resolution):
    errors = []
    for image in photos(scale):
        for draw in range(4):
            rng = rng_of(draw)
            box = random_crop_box(image.size, rng_of(draw))
            shorter = int(torch.randint(256, 385, (1,), generator=rng))
            width, height = resized(image.size, shorter)
            left = int(torch.randint(0, width - CROP + 1, (1,), generator=rng))
            top = int(torch.randint(0, height - CROP + 1, (1,), generator=rng))
            fused = resample(image, box, resolution).permute(1, 2, 0).numpy()
            errors.append(((fused - published(image, shorter, left, top, resolution)) ** 2).mean())
    rmse = np.mean(errors) ** 0.5
    print(f"scale {scale}, R {resolution}: RMSE {rmse:.2f}")
    assert rmse < allowed


@pytest.mark.parametrize("resolution", [32, 48, 64])
def test_evaluation_is_shorter_side_224_and_the_centre_crop(resolution):
    for image in photos():
        width, height = resized(image.size, CROP)
        left, top = round((width - CROP) / 2), round((height - CROP) / 2)
        expected = published(image, CROP, left, top, resolution)
        fused = resample(image, centre_crop_box(image.size), resolution).permute(1, 2, 0).numpy()
        assert ((fused - expected) ** 2).mean() ** 0.5 < 1.0


def test_the_shorter_side_is_uniform_from_256_to_384_and_the_crop_lies_anywhere_inside():
    rng, (width, height) = rng_of(0), BIG
    boxes = torch.tensor([random_crop_box(BIG, rng) for _ in range(4000)])
    shorter = CROP / (boxes[:, 3] - boxes[:, 1]) * height
    assert shorter.min().item() == pytest.approx(256, abs=0.5)
    assert shorter.max().item() == pytest.approx(384, abs=0.5)
    assert shorter.mean().item() == pytest.approx(320, abs=3)
    assert boxes[:, :2].min() == 0
    assert boxes[:, 2].max() <= width + 1e-3
    assert boxes[:, 3].max() <= height + 1e-3
    room = torch.stack([width - boxes[:, 2] + boxes[:, 0], height - boxes[:, 3] + boxes[:, 1]], 1)
    place = boxes[:, :2] / room
    assert torch.allclose(place.mean(0), torch.tensor([0.5, 0.5]), atol=0.02)
    assert (place.max(0).values > 0.98).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (224, 224), (30, 31)])
def test_any_size_and_shape_gives_a_square_inside_the_image(size):
    for box in (centre_crop_box(size), random_crop_box(size, rng_of(1))):
        assert 0 <= box[0] < box[2] <= size[0] + 1e-6
        assert 0 <= box[1] < box[3] <= size[1] + 1e-6
        image = resample(Image.new("RGB", size, (9, 99, 199)), box, 8)
        assert (image == torch.tensor([9, 99, 199])[:, None, None]).all()


def splitmix64(state):
    """Steele, Lea and Flood's generator, one number on, written out for Python's whole numbers."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
    return state, word ^ (word >> 31)


def drawn_by_hand(seed, epoch, index, counts):
    """The numbers of one image: its key is a chain of hashes, and its own generator starts there."""
    _, key = splitmix64(seed)
    _, key = splitmix64(key ^ epoch)
    _, key = splitmix64(key ^ index)
    found = []
    for count in counts:
        key, word = splitmix64(key)
        found.append(((word >> 32) * count) >> 32)
    return found


def shifted_by_hand(image, top, left, mirror, pad):
    """NumPy's own padding, crop and mirror image."""
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    side = image.shape[-1]
    crop = padded[:, top : top + side, left : left + side]
    return crop[:, :, ::-1] if mirror else crop


def random_images(count, side):
    return torch.randint(256, (count, 3, side, side), generator=rng_of(3)).to(torch.uint8)


def keys(count, seed=5, epoch=2):
    return keys_of(seed, torch.full((count,), epoch), torch.arange(count))


@pytest.mark.parametrize(("side", "pad"), [(32, 4), (48, 6), (8, 1), (9, 1)])
def test_fine_tuning_is_padding_cropping_and_mirroring_by_the_key_of_each_image(side, pad):
    images = random_images(300, side)
    shifted = pad_crop_flip(images, keys(300))
    for index in range(300):
        top, left, mirror = drawn_by_hand(5, 2, index, [2 * pad + 1, 2 * pad + 1, 2])
        expected = shifted_by_hand(images[index].numpy(), top, left, mirror, pad)
        np.testing.assert_array_equal(shifted[index].numpy(), expected)


@pytest.mark.parametrize(("seed", "epoch", "index"), [(0, 0, 0), (2**32 - 1, 10**6, 10**8), (1, 0, 7)])
def test_the_draws_are_those_of_splitmix64_whatever_the_size_of_seed_epoch_and_index(seed, epoch, index):
    key = keys_of(seed, torch.tensor([epoch]), torch.tensor([index]))
    counts = [2, 9, 256, 10**6, 2**31]
    found = [int(random_ints(key, stream, count)) for stream, count in enumerate(counts)]
    assert found == drawn_by_hand(seed, epoch, index, counts)


def test_each_place_of_the_crop_and_each_side_is_drawn_equally_often_in_every_epoch():
    count = 20_000
    for epoch in (0, 1):
        own = keys(count, epoch=epoch)
        top, left = (random_ints(own, stream, 9) for stream in range(2))
        mirrored = random_ints(own, 2, 2)
        cells = ((top * 9 + left) * 2 + mirrored).bincount(minlength=162)
        expected = count / 162
        statistic = float(((cells - expected) ** 2 / expected).sum())
        assert 161 - 4 * 322**0.5 < statistic < 161 + 4 * 322**0.5  # chi-squared of 161 degrees of freedom


def test_neighbouring_seeds_epochs_and_images_have_nothing_in_common():
    count = 4096
    choices = product((0, 1), repeat=3)
    streams = [random_ints(keys(count, seed, epoch), stream, 2) for seed, epoch, stream in choices]
    bits = torch.stack([*streams, streams[0].roll(1)]).double() * 2 - 1
    correlation = bits @ bits.T / count
    assert (correlation - torch.eye(len(bits))).abs().max() < 5 / count**0.5


def test_an_image_is_shifted_alike_alone_in_any_batch_and_in_any_order():
    images, own = random_images(64, 32), keys(64)
    whole = pad_crop_flip(images, own)
    order = torch.randperm(64, generator=rng_of(1))
    assert torch.equal(pad_crop_flip(images[order], own[order]), whole[order])
    assert all(torch.equal(pad_crop_flip(images[[index]], own[[index]])[0], whole[index]) for index in range(64))


def test_the_same_generator_gives_the_same_crop():
    drawn = [ShiftedImages(random_images(4, 32), torch.arange(4)).draw(2, rng_of(1, 2, last)) for last in (3, 3, 4)]
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert not torch.equal(drawn[0][0], drawn[2][0])
    assert drawn[0][1] == 2
    assert random_crop_box(BIG, rng_of(1, 2, 3)) == random_crop_box(BIG, rng_of(1, 2, 3))
    assert random_crop_box(BIG, rng_of(1, 2, 3)) != random_crop_box(BIG, rng_of(1, 2, 4))
