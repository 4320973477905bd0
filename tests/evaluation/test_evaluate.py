"""`igpt evaluate` refuses in one line what it cannot judge."""

import json
import shlex

import pytest
import torch
from PIL import Image

from igpt.cli import main
from igpt.commands.after import encoders
from igpt.commands.after.encoders import distance_name
from igpt.data import save_picture
from igpt.system import sha256_of
from igpt_datamodules import Digits


def refused(capsys, *words):
    assert main(["evaluate", *map(str, words)]) == 2
    return capsys.readouterr().err.strip()


@pytest.mark.parametrize("count", [0, 1])
def test_a_folder_of_too_few_pictures(capsys, tmp_path, count):
    for number in range(count):
        save_picture(torch.zeros(3, 8, 8, dtype=torch.uint8), tmp_path / f"{number}.png")
    source = ["--source", "torchvision:resnet18", "--weights", "random", "--data", "Digits"]
    line = refused(capsys, "--samples", tmp_path, *source)
    assert f"holds {count} pictures" in line
    assert "\n" not in line


def test_pictures_of_another_size(capsys, tmp_path):
    for number in range(10):
        save_picture(torch.zeros(3, 9, 9, dtype=torch.uint8), tmp_path / f"{number}.png")
    line = refused(capsys, "--samples", tmp_path, "--source", "torchvision:resnet18", "--weights", "random",
                   "--data", "Digits")  # fmt: skip
    assert "is 9x9" in line
    assert "\n" not in line


def test_copies_of_training_images_are_flagged_and_the_figures_stand_beside_their_controls(igpt, tmp_path):
    train = Digits().images("train")
    for number in range(12):
        pixels = train[100 * number][0]
        save_picture(pixels if number % 2 else 255 - pixels, tmp_path / f"{number:02}.png")
    out = tmp_path / "judged"
    code, said, err = igpt("evaluate", "--samples", tmp_path, "--data", "Digits", "--source", "torchvision:resnet18",
                           "--weights", "random", "--out", out)  # fmt: skip
    assert code == 0, err
    record = json.loads((out / "evaluate.json").read_text())
    flagged = set(record["copies"]["flagged"])
    assert set(range(1, 12, 2)) <= flagged  # the others are negatives: no copies
    assert 0 not in flagged
    figures = record["figures"]
    assert figures["noise"]["frechet"] > figures["shuffled pixels"]["frechet"] > figures["test (floor)"]["frechet"]
    assert figures["test (floor)"]["copies"] <= 0.05
    assert [name for name in figures if name not in said] == []
    with Image.open(out / "nearest.png") as picture:
        assert picture.size[0] > picture.size[1]  # samples beside each other, their neighbours below


def test_no_subject_and_no_data(capsys, tmp_path):
    assert "--data is missing" in refused(capsys, "--samples", tmp_path)
    assert "either --ckpt" in refused(capsys, "--source", "torchvision:resnet18")


def test_without_a_source_the_line_is_the_command_that_trains_one_which_is_then_found(igpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = Digits().images("train")
    for number in range(10):
        save_picture(train[number][0], tmp_path / "drawn" / f"{number}.png")
    given = ["evaluate", "--samples", "drawn", "--data", "Digits", "--data.seed", 3]
    code, _, err = igpt(*given)
    assert code == 2
    assert err.count("\n") == 1
    words = shlex.split(err[err.index("igpt fit") :])[1:]
    assert words[words.index("--data.seed") + 1] == "3"
    short = ["--trainer.max_steps", 1, "--trainer.limit_val_batches", 1, "--trainer.accelerator", "cpu"]
    assert igpt(*words, *short, "--trainer.precision", "32-true")[0] == 0
    code, said, err = igpt(*given)
    assert code == 0, err
    record = json.loads((tmp_path / "drawn_evaluate" / "evaluate.json").read_text())
    assert (
        record["distance"] == f"Frechet distance in {record['space']['source']}, layer {record['space']['layer_name']}"
    )
    assert record["space"]["source"].endswith("simclr_Digits")
    assert record["distance"] in said
    assert igpt(*given[:-1], 4)[0] == 2  # other splits are other data


def test_a_distance_is_fid_with_the_weights_that_define_it_alone(tmp_path, monkeypatch):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"others")
    assert distance_name("plug", "pool", str(weights), 2048) == "Frechet distance in plug, layer pool"
    monkeypatch.setattr(encoders, "INCEPTION", sha256_of(weights))
    assert distance_name("plug", "pool", str(weights), 2048) == "FID"
    assert distance_name("plug", "pool", str(weights), 64) == "Frechet distance in plug, layer pool"
    assert distance_name("plug", "pool", None, 2048) == "Frechet distance in plug, layer pool"
