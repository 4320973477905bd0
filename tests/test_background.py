"""Transparent pictures are laid on the colour that their data name, wherever they are read."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import igpt
from igpt_datamodules import ImageFolder, WebImages


@pytest.fixture
def transparent(tmp_path):
    """Two classes of pictures whose left half is a colour and whose right half is not there."""
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, :8] = (200, 30, 30, 255)
    for index in range(24):
        place = tmp_path / "cut" / "ab"[index % 2] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels[0, 0, 1] = index  # no two alike
        Image.fromarray(pixels).save(place)
    return tmp_path / "cut"


@pytest.mark.parametrize(("name", "colour"), [("white", 255), ("black", 0), ("#404040", 64)])
@pytest.mark.parametrize("kind", [ImageFolder, WebImages])
def test_what_is_transparent_has_the_colour_of_the_background(transparent, kind, name, colour):
    data = kind(root=str(transparent), resolution=8, background=name)
    data.prepare_data()
    image = data.images("test")[0][0]
    assert torch.equal(image[:, :, 6:], torch.full((3, 8, 2), colour, dtype=torch.uint8))
    assert data.spec()["init_args"].get("background", "white") == name


def test_a_colour_that_is_none_is_refused():
    with pytest.raises(igpt.UserError, match="background 'glass' is no colour"):
        ImageFolder(background="glass")


@pytest.mark.parametrize(("kind", "workers"), [("ImageFolder", 0), ("ImageFolder", 2), ("WebImages", 0)])
def test_a_palette_says_how_many_pictures_were_laid_on_what(
    transparent, igpt_command, tmp_path, monkeypatch, kind, workers
):
    monkeypatch.chdir(tmp_path)
    for index, file in enumerate(sorted(transparent.rglob("*.png"))):
        if index % 4 == 0:  # all there, with a channel that says so
            Image.new("RGBA", (16, 16), (index, 9, 9, 255)).save(file)
        elif index % 4 == 1:  # a colour of its palette that is not there
            Image.effect_noise((16, 16), index).convert("P").save(file, transparency=128)
    words = ("--data", kind, "--data.root", "cut", "--data.resolution", 8, "--data.num_workers", workers)
    code, out, err = igpt_command("palette", *words, "--data.background", "black", "--colors", 4, "--out", "p.npy")
    assert code == 0, err
    data = {"ImageFolder": ImageFolder, "WebImages": WebImages}[kind](root="cut", resolution=8)
    stored = [data.images("train").base.stored[int(row)] for row in data.images("train").indices]
    expected = sum(np.asarray(Image.open(one.file).convert("RGBA"))[..., 3].min() < 255 for one in stored)
    assert 0 < expected < len(stored)
    assert f"{expected} of {len(stored)} images are transparent in places; laid on black\n" in out
    report = json.loads((tmp_path / "p.json").read_text())
    assert (report["transparent_images"], report["background"]) == (expected, "black")


def test_a_palette_of_pictures_without_transparency_says_nothing_of_it(igpt_command, tmp_path):
    code, out, _ = igpt_command("palette", "--data", "Digits", "--colors", 4, "--out", tmp_path / "p.npy")
    assert code == 0
    assert "transparent" not in out + (tmp_path / "p.json").read_text()


def test_a_model_reads_new_pictures_on_the_background_of_its_data(transparent, igpt_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = igpt_command("init", "cut", "--resolution", 8, "--colors", 8, "--background", "black")
    assert code == 0, err
    code, _, err = igpt_command("fit", "--config", "cut.yaml", "--trainer.max_steps", 1, "--samples.num", 0,
                                "--samples.completions", 0, "--trainer.val_check_interval", 1)  # fmt: skip
    assert code == 0, err
    model = igpt.load("runs/cut", device="cpu")
    file = next(transparent.rglob("*.png"))
    right = model.palette.decode(model.palette.encode([str(file)]))[0, :, 5:]
    assert np.asarray(right).max() < 40
    assert (np.asarray(model.palette.encode([Image.open(file)])) == np.asarray(model.palette.encode([str(file)]))).all()


@pytest.fixture
def igpt_command(request):
    return request.getfixturevalue("igpt")
