import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from igpt.data import rng_of
from igpt_datamodules.augment import (
    CROP,
    FILTER,
    centre_crop_box,
    pad_crop_flip,
    random_crop_box,
    resample,
    resized,
)

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


def windows(image, pad):
    """Every crop that padding by reflection and mirroring allow, by NumPy's own padding."""
    crops = []
    for version in (image.numpy(), image.numpy()[:, :, ::-1]):
        padded = np.pad(version, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
        side = image.shape[-1]
        crops += [
            padded[:, y : y + side, x : x + side].tobytes() for y in range(2 * pad + 1) for x in range(2 * pad + 1)
        ]
    return crops


@pytest.mark.parametrize(("side", "pad"), [(32, 4), (48, 6), (8, 1)])
def test_fine_tuning_draws_each_crop_of_the_padded_image_or_its_mirror_image_equally_often(side, pad):
    image = torch.randint(256, (3, side, side), generator=rng_of(3)).to(torch.uint8)
    allowed, rng, count = windows(image, pad), rng_of(5), 4000
    drawn = [pad_crop_flip(image, rng).numpy().tobytes() for _ in range(count)]
    assert set(drawn) == set(allowed)
    assert len(set(allowed)) == 2 * (2 * pad + 1) ** 2
    mirrored = set(allowed[len(allowed) // 2 :])
    assert sum(crop in mirrored for crop in drawn) == pytest.approx(count / 2, abs=130)


def test_the_same_generator_gives_the_same_crop():
    image = torch.arange(3 * 32 * 32).reshape(3, 32, 32).to(torch.uint8)
    assert torch.equal(pad_crop_flip(image, rng_of(1, 2, 3)), pad_crop_flip(image, rng_of(1, 2, 3)))
    assert random_crop_box(BIG, rng_of(1, 2, 3)) == random_crop_box(BIG, rng_of(1, 2, 3))
    assert random_crop_box(BIG, rng_of(1, 2, 3)) != random_crop_box(BIG, rng_of(1, 2, 4))
