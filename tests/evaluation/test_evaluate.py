"""`igpt evaluate` refuses in one line what it cannot judge."""

import pytest
import torch

from igpt.cli import main
from igpt.data import save_picture


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


def test_no_source_and_no_subject(capsys, tmp_path):
    assert "simclr_digits" in refused(capsys, "--samples", tmp_path)
    assert "either --ckpt" in refused(capsys, "--source", "torchvision:resnet18")
