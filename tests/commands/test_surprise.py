"""`igpt surprise`, on test digits written as picture files."""

import numpy as np
import pytest
import torch
from PIL import Image

import igpt as api
from igpt.data import rng_of
from igpt.model.objectives import covering_masks, next_pixel_loss


@pytest.fixture
def pictures(digits_run, tmp_path):
    """Three test digits as files, and their tokens."""
    loaded = api.load(digits_run.checkpoint)
    test = loaded.data().images("test")
    images = torch.stack([test[index][0] for index in range(3)])
    files = [tmp_path / f"digit{index}.png" for index in range(3)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    return files, loaded.module.palette.encode(images)


def test_the_surprise_of_ar_is_the_exact_loss_of_each_picture(digits_run, igpt, tmp_path, pictures):
    files, tokens = pictures
    code, out, err = igpt("surprise", *files, "--ckpt", digits_run.checkpoint, "--out", tmp_path / "s.png")
    assert code == 0, err
    nats = np.load(tmp_path / "s.npy")
    assert nats.shape == (3, 8, 8)
    assert nats.dtype == np.float32
    transformer = api.load(digits_run.checkpoint).module.transformer
    assert out.startswith("precision ")
    for index, line in enumerate(out.splitlines()[1:4]):
        with torch.no_grad():
            expected = next_pixel_loss(transformer(tokens[index : index + 1], causal=True), tokens[index : index + 1])
        assert nats[index].mean() == pytest.approx(expected.item(), rel=1e-5)
        assert line == f"{files[index]}: {expected:.4f} nats, {expected / np.log(2):.4f} bits per pixel"


def test_the_surprise_of_bert_is_of_pixels_it_does_not_see(digits_bert_run, igpt, tmp_path, pictures):
    files, tokens = pictures
    code, _, err = igpt("surprise", *files, "--ckpt", digits_bert_run.checkpoint, "--seed", 5, "--out",
                        tmp_path / "s.png")  # fmt: skip
    assert code == 0, err
    nats = torch.from_numpy(np.load(tmp_path / "s.npy")).flatten(1)
    transformer = api.load(digits_bert_run.checkpoint).module.transformer
    for mask in covering_masks(64, 0.15, rng_of(5)):
        hidden = torch.where(mask, 0, tokens)  # another colour there changes nothing
        with torch.no_grad():
            shares = transformer(hidden, causal=False, masked=mask.expand_as(tokens)).log_softmax(-1)
        expected = -shares.gather(2, tokens[..., None])[..., 0]
        torch.testing.assert_close(nats[:, mask], expected[:, mask], atol=1e-4, rtol=1e-4)


def test_the_picture_shows_each_image_beside_its_map_on_one_scale(digits_run, igpt, tmp_path, pictures):
    files, _ = pictures
    assert igpt("surprise", *files[:2], "--ckpt", digits_run.checkpoint, "--out", tmp_path / "s.png")[0] == 0
    nats = np.load(tmp_path / "s.npy")
    with Image.open(tmp_path / "s.png") as file:
        shown = np.asarray(file)
    assert shown.shape == (19 * 30 + 60, 19 * 30 + 260, 3)  # two images and three gaps, 30 times; names, legend
    small = shown[: 19 * 30 : 30, : 19 * 30 : 30]
    names = shown[: 19 * 30, 19 * 30 :]
    assert names[:285].min() < 100  # each row has its file's name beside it
    assert names[285:].min() < 100
    brightness = np.stack([small[1:9, 10:18], small[10:18, 10:18]]).sum(-1)
    brightest = np.unravel_index(nats.argmax(), nats.shape)
    assert brightness[brightest] == brightness.max()
    order = np.argsort(nats.flatten())
    assert (np.diff(brightness.flatten()[order]) >= -9).all()  # brighter is more surprising, over both files
    with Image.open(files[0]) as original:
        np.testing.assert_array_equal(small[1:9, 1:9], np.asarray(original))  # the palette has every grey of the digits
    assert shown[19 * 30 :].min() == 0  # the legend has numbers


def test_a_fixed_scale_makes_the_maps_of_two_commands_comparable(digits_run, igpt, tmp_path, pictures):
    files, _ = pictures
    maps = []
    for index, words in enumerate(([files[0], files[1]], [files[0], files[2]])):
        out = tmp_path / f"{index}.png"
        assert igpt("surprise", *words, "--ckpt", digits_run.checkpoint, "--top", 6, "--out", out)[0] == 0
        with Image.open(out) as file:
            maps.append(np.asarray(file)[: 10 * 30, : 19 * 30])
    assert np.array_equal(*maps)
    code, _, err = igpt("surprise", files[0], "--ckpt", digits_run.checkpoint, "--top", 0, "--out", tmp_path / "n.png")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--top" in err


def test_no_picture_that_is_read_and_no_other_array_is_written_over(digits_run, igpt, tmp_path, pictures):
    files, _ = pictures
    np.save(tmp_path / "colours.npy", np.zeros((17, 3), np.float32))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for out in (files[1], tmp_path / "colours.png"):
        code, _, err = igpt("surprise", *files, "--ckpt", digits_run.checkpoint, "--out", out)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert "--out" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    for _ in range(2):
        assert igpt("surprise", files[0], "--ckpt", digits_run.checkpoint, "--out", tmp_path / "s.png")[0] == 0
