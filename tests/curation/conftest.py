"""Patches of two photos that do not overlap, and what becomes of pictures on the web."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

SIDE = 64


def half(picture, rng):
    return picture.resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC).resize((SIDE, SIDE))


def recompressed(picture, rng):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=50)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def cropped(picture, rng):
    cut = round(0.05 * SIDE)
    left, top = rng.integers(0, cut + 1, 2).tolist()
    return picture.crop((left, top, left + SIDE - cut, top + SIDE - cut))


CHANGES = {"half": half, "jpeg": recompressed, "crop": cropped}


@pytest.fixture(scope="session")
def patches():
    return [
        Image.fromarray(photo[y : y + SIDE, x : x + SIDE])
        for photo in load_sample_images().images
        for y in range(0, photo.shape[0] - SIDE + 1, SIDE)
        for x in range(0, photo.shape[1] - SIDE + 1, SIDE)
    ]


@pytest.fixture(scope="session")
def web(tmp_path_factory, patches):
    """A folder with all patches and three changed copies of each; a reference with a tenth of them to test on."""
    root, rng = tmp_path_factory.mktemp("curation"), np.random.default_rng(0)
    for folder in ("web", "ref/train/a", "ref/test/a"):
        (root / folder).mkdir(parents=True)
    for number, patch in enumerate(patches):
        patch.save(root / "web" / f"{number:03d}_0.png")
        for name, change in CHANGES.items():
            change(patch, rng).save(root / "web" / f"{number:03d}_{name}.png")
        if number % 10 == 9:
            patch.save(root / "ref/test/a" / f"{number:03d}.png")
        elif number < 60 and number % 3 == 0:  # of the first photo alone
            patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "ref/train/a" / f"{number:03d}.png")
    return root
