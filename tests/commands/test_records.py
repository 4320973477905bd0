"""What a run's folder keeps: commands, scores, the likelihood of every test image, and a config that finds it again."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

import igpt as api
from igpt.report.reading import read_scores
from igpt.runs.records import add_command, add_score, confusion, plain_metrics
from tests.forked import Forked
from tests.reference import numpy_igpt


@pytest.fixture
def runs(digits_run, digits_bert_run, tmp_path):
    """A copy of the folder of runs, in the working folder of the test."""
    shutil.copytree(digits_run.home / "runs", tmp_path / "runs", symlinks=True)
    for folder in (tmp_path / "runs").iterdir():  # what other tests left there
        (folder / "scores.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "likelihood", ignore_errors=True)
    return tmp_path / "runs"


def scores(folder):
    return json.loads((folder / "scores.json").read_text())


def test_the_config_of_a_run_finds_its_folder_again(runs, igpt):
    folder = runs / "mini"
    before = (folder / "config.yaml").read_text()
    assert yaml.safe_load(before)["name"] == "mini"
    code, _, err = igpt("test", "--config", folder / "config.yaml", "--runs_dir", runs, "--ckpt_path", "last")
    assert code == 0, err
    assert scores(folder)[0]["checkpoint"] == str(folder / "checkpoints" / "last.ckpt")
    assert (folder / "config.yaml").read_text() == before
    assert not (runs / "config").exists()


def test_every_verb_adds_its_command_line_to_the_run(runs, digits_run, igpt):
    folder = runs / "mini"
    (folder / "commands.txt").write_text("igpt fit --config mini.yaml\n")
    common = ["--config", digits_run.config, "--runs_dir", runs, "--ckpt_path", "last", "--name", "mini"]
    written = " ".join(map(str, common))
    for verb in ("validate", "test", "predict"):
        assert igpt(verb, *common)[0] == 0
    assert igpt("validate", *common, "--data.init_args.batch_size", 0)[0] == 2
    lines = (folder / "commands.txt").read_text().splitlines()
    assert lines == ["igpt fit --config mini.yaml", *(f"igpt {verb} {written}" for verb in
                                                      ("validate", "test", "predict"))]  # fmt: skip


def test_a_run_begins_its_own_list_of_commands_and_going_on_adds_to_it(digits_run, igpt, tmp_path):
    options = ["fit", "--config", digits_run.config, "--runs_dir", tmp_path, "--name", "a b", "--samples.num", 0,
               "--samples.completions", 0, "--trainer.max_steps"]  # fmt: skip
    for more in ([2], [3], [4, "--ckpt_path", "last"]):
        code, _, err = igpt(*options, *more)
        assert code == 0, err
    lines = (tmp_path / "a b" / "commands.txt").read_text().splitlines()
    assert [line.split("max_steps ")[1] for line in lines] == ["3", "4 --ckpt_path last"]
    assert "--name 'a b'" in lines[0]  # as a shell takes it
    assert len((tmp_path / "a b.1" / "commands.txt").read_text().splitlines()) == 1


def test_a_score_says_what_was_evaluated_and_what_came_out(runs, digits_run, igpt):
    folder = runs / "mini"
    common = ["--config", folder / "config.yaml", "--runs_dir", runs, "--ckpt_path"]
    code, out, err = igpt("validate", *common, folder / "checkpoints" / "step=0000020.ckpt")
    assert code == 0, err
    assert igpt("test", *common, "last", "--data.init_args.batch_size", 100)[0] == 0
    validated, tested = scores(folder)
    assert (validated["verb"], validated["step"]) == ("validate", 20)
    assert (tested["verb"], tested["step"]) == ("test", 30)
    assert validated["command"].startswith(f"igpt validate --config {folder / 'config.yaml'} --runs_dir")
    printed = float(next(line.split()[-1] for line in out.splitlines() if "val/loss" in line))
    assert validated["metrics"]["val/loss"] == pytest.approx(printed, rel=1e-6)
    assert "likelihood" not in validated
    assert tested["model"]["class_path"] == "igpt.modules.autoregressive.Autoregressive"
    assert tested["model"]["learning_rate"] == 0.01
    assert "transformer" not in tested["model"]
    assert tested["data"]["init_args"]["batch_size"] == 100
    assert tested["precision"] == "32-true"
    assert set(tested["metrics"]) == {"test/loss", "test/bits_per_pixel"}


def test_the_likelihood_of_every_test_image_is_exact_and_its_mean_the_loss(runs, igpt):
    folder = runs / "mini"
    code, out, err = igpt("test", "--config", folder / "config.yaml", "--runs_dir", runs, "--ckpt_path", "last")
    assert code == 0, err
    with (folder / "likelihood" / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "nats_per_pixel", "bits_per_pixel"]
    assert [int(row["index"]) for row in rows] == list(range(359))
    nats = np.array([float(row["nats_per_pixel"]) for row in rows])
    np.testing.assert_allclose([float(row["bits_per_pixel"]) for row in rows], nats / np.log(2), rtol=1e-7)
    loaded = api.load(folder / "checkpoints" / "last.ckpt")
    test = loaded.data().images("test")
    assert [int(row["label"]) for row in rows] == [int(label) for label in test.labels]
    weights = {name: value.numpy() for name, value in loaded.module.transformer.state_dict().items()}
    for index in (0, 100, 358):
        tokens = loaded.module.encode(test[index][0][None]).numpy()
        expected = numpy_igpt.next_pixel_loss(weights, tokens, n_layers=3, heads=4)
        assert nats[index] == pytest.approx(expected, rel=1e-5)
    entry = scores(folder)[0]
    assert nats.mean() == pytest.approx(entry["metrics"]["test/loss"], rel=1e-6)
    assert entry["likelihood"] == pytest.approx(
        {"images": 359, "mean_nats": nats.mean(), "std_nats": nats.std(), "mean_bits": nats.mean() / np.log(2)},
        rel=1e-6,
    )
    assert f"likelihood of 359 images: {nats.mean():.4f} nats per pixel" in out
    assert "bits of palette tokens" in out


def test_the_precision_of_a_likelihood_is_recorded_and_read(runs, igpt):
    folder = runs / "mini"
    code, _, err = igpt("test", "--config", folder / "config.yaml", "--runs_dir", runs, "--ckpt_path", "last",
                        "--trainer.precision", "bf16-mixed")  # fmt: skip
    assert code == 0, err
    assert read_scores(folder / "scores.json", pytest.fail)[0].precision == "bf16-mixed"


def test_bert_has_no_likelihood_and_the_test_says_so(runs, igpt):
    folder = runs / "mini_bert"
    code, out, err = igpt("test", "--config", folder / "config.yaml", "--runs_dir", runs, "--ckpt_path", "last")
    assert code == 0, err
    assert "masked pixels, under the same masks in every test" in out
    assert not (folder / "likelihood").exists()
    assert "likelihood" not in scores(folder)[0]
    assert scores(folder)[0]["model"]["mask_share"] == 0.15


@pytest.mark.slow
def test_several_processes_write_no_part_of_the_likelihood_and_say_so(runs):
    folder = runs / "mini"
    before = len((folder / "commands.txt").read_text().splitlines())
    command = [sys.executable, "-m", "igpt", "test", "--config", folder / "config.yaml", "--runs_dir", runs,
               "--ckpt_path", "last", "--trainer.devices", "2", "--trainer.strategy", "ddp"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=runs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no likelihood of each image: it is collected in one process") == 1
    assert not (folder / "likelihood").exists()
    assert len(scores(folder)) == 1
    assert len((folder / "commands.txt").read_text().splitlines()) == before + 1


@pytest.mark.parametrize("option", [["--trainer.logger", "false"], ["--trainer.fast_dev_run", "true"]])
def test_a_run_that_logs_nothing_keeps_no_records(runs, igpt, option):
    folder = runs / "mini"
    before = (folder / "commands.txt").read_text()
    common = ["--config", folder / "config.yaml", "--runs_dir", runs, "--ckpt_path", "last"]
    code, _, err = igpt("test", *common, *option)
    assert code == 0, err
    assert not (folder / "scores.json").exists()
    assert (folder / "commands.txt").read_text() == before


def test_a_loss_that_is_not_finite_is_null_in_the_scores():
    assert plain_metrics({"val/loss": torch.tensor(float("nan")), "val/top": 0.5}) == {"val/loss": None, "val/top": 0.5}


def test_a_confusion_of_more_classes_than_anybody_reads_is_not_kept():
    assert confusion(torch.eye(2, dtype=torch.int64), ["a", 1]) == {"classes": ["a", "1"], "counts": [[1, 0], [0, 1]]}
    assert confusion(torch.eye(101), []) is None


def add_25(folder):
    for number in range(25):
        add_score(folder, {"verb": "test", "number": number})
        add_command(folder, f"igpt test {number}")


def test_of_four_processes_that_add_at_once_every_entry_arrives(tmp_path):
    running = [Forked(add_25, tmp_path) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert len(scores(tmp_path)) == 100
    assert len((tmp_path / "commands.txt").read_text().splitlines()) == 100


def test_a_limit_that_a_config_brings_is_said_and_recorded(runs, digits_run, igpt):
    common = ["--config", digits_run.config, "--runs_dir", runs, "--name", "mini", "--ckpt_path", "last"]
    code, _, err = igpt("validate", *common, "--trainer.limit_val_batches", 2)
    assert code == 0, err
    assert "--trainer.limit_val_batches 2: these figures are of a part" in err
    assert igpt("validate", *common)[0] == 0
    assert [entry.get("limit_batches") for entry in scores(runs / "mini")] == [2, None]


def test_a_likelihood_is_not_written_over_a_table_from_elsewhere(runs, igpt):
    folder = runs / "mini"
    table = folder / "likelihood" / "test.csv"
    table.parent.mkdir()
    table.write_text("index,grade\n0,A\n")
    code, _, err = igpt("test", "--config", folder / "config.yaml", "--runs_dir", runs, "--ckpt_path", "last")
    assert (code, err.count("is not of this command")) == (2, 1), err
    assert table.read_text() == "index,grade\n0,A\n"
