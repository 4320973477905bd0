"""From a folder of pictures to a report by the commands that `igpt init` names, none of them edited."""

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.datamodules.pictures import class_tree, encoded, picture


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(config):
    """The commands in the head of a config, with fewer steps where it trains."""
    for line in Path(config).read_text().splitlines():
        if line.startswith("# igpt "):
            words = shlex.split(line.removeprefix("# igpt ").partition("   ")[0])
            yield [*words, "--trainer.max_steps=2", "--trainer.val_check_interval=2"] if words[0] == "fit" else words


def test_class_folders_come_to_a_report_in_five_commands(here, igpt):
    class_tree(Path("pets"), {"cat": 30, "dog": 30})
    code, out, err = igpt("init", "pets", "--resolution", 8, "--colors", 16, "--batch_size", 8)
    assert code == 0, err
    assert "train with: igpt fit --config pets.yaml" in out
    asked = list(commands("pets.yaml"))
    assert [words[0] for words in asked] == ["fit", "probe", "sample", "report"]
    for words in asked:
        code, _, err = igpt(*words)
        assert code == 0, err
    assert all(Path(name).stat().st_size > 1000 for name in ("completions.png", "report.html"))
    assert Path("runs/pets/probe/probe.json").exists()


def test_a_broken_file_is_left_out_and_the_run_is_found_by_the_name_of_its_pictures(here, igpt):
    class_tree(Path("pets"), {"cat": 30, "dog": 30})
    Path("pets/cat/broken.jpg").write_bytes(encoded(picture(1))[:300])
    code, out, err = igpt("init", "pets", "--resolution", 8, "--batch_size", 8)
    assert code == 0, err
    assert "broken.jpg" in out + err or "1 " in out
    assert " 16 colours" in Path("pets.yaml").read_text()  # 49 pictures of 64 pixels
    assert igpt(*next(commands("pets.yaml")))[0] == 0
    code, out, err = igpt("probe", "--ckpt", "pets", "--method", "knn")
    assert code == 0, err
    assert "test images: accuracies are good to about" in out
    assert Path("runs/pets/probe/probe.json").exists()


def test_pictures_beside_each_other_are_read_without_labels(here, igpt):
    Path("flat").mkdir()
    for index in range(20):
        (Path("flat") / f"{index}.jpg").write_bytes(encoded(picture(index)))
    assert igpt("init", "flat", "--resolution", 8, "--colors", 16, "--batch_size", 4)[0] == 0
    assert yaml.safe_load(Path("flat.yaml").read_text())["data"]["class_path"] == "igpt_datamodules.WebImages"
    fit, sample, report = commands("flat.yaml")  # there is nothing to probe without labels
    for words in (fit, sample, report):
        code, _, err = igpt(*words)
        assert code == 0, err


def test_a_grey_picture_of_few_colours_gives_a_palette_of_so_many(here, igpt):
    Path("grey/a").mkdir(parents=True)
    Path("grey/b").mkdir()
    for index in range(24):
        picture(index % 2).convert("1").save(f"grey/{'ab'[index % 2]}/{index}.png")
    assert igpt("init", "grey", "--resolution", 8)[0] == 0
    fit = next(commands("grey.yaml"))
    code, _, err = igpt(*fit)
    assert code == 0, err


def test_nothing_is_written_over_and_no_folder_is_one_line(here, igpt):
    class_tree(Path("pets"), {"cat": 4, "dog": 4})
    Path("pets.yaml").write_text("mine")
    for words, about in (
        (("pets",), "pets.yaml exists"),
        (("gone",), "gone is no folder"),
        (("a", "b"), "a b is no folder"),
    ):
        code, _, err = igpt("init", *words)
        assert (code, len(err.splitlines())) == (2, 1)
        assert about in err
    assert Path("pets.yaml").read_text() == "mine"
    assert not Path("palettes").exists()


@pytest.mark.parametrize("verb", ["probe", "validate"])
@pytest.mark.parametrize("option", ["--ckpt", "--ckpt_path", "--ckpt-path"])
def test_a_checkpoint_is_named_by_file_run_or_name_under_both_options(
    digits_run, igpt, tmp_path, monkeypatch, verb, option
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_run.folder, "runs/mini")
    rest = ["--method", "knn", "--out", tmp_path / "p"] if verb == "probe" else ["--config", digits_run.config]
    code, _, err = igpt(verb, option, "mini" if option == "--ckpt" else "runs/mini", *rest)
    assert code == 0, err
