"""Transparent pictures are laid on the colour that their data name, wherever they are read."""

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
