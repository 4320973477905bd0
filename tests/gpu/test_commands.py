"""The commands on a GPU, as a user gives them."""

import json
import math

import numpy as np
import pytest
import yaml
from PIL import Image

import igpt as api
from igpt.checkpoints.format import read_checkpoint
from igpt.probing.methods import METHODS
from tests.conftest import small_model
from tests.reads import watched_run
from tests.stopping import stop
from tests.test_resume import assert_same_end, losses

STEPS = 16
EXACT = ["--precision", "32-true", "--tf32", "false"]


@pytest.fixture
def fit(device, accelerator, digits_run, igpt, tmp_path):
    """`fit(folder, options...)` is `igpt fit` there, with sums in one order, and gives the folder and the exit code."""
    trainer = {
        "max_steps": STEPS,
        "val_check_interval": 8,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "deterministic": device.type != "mps",  # where some of its sums have no fixed order
        "accelerator": accelerator,
    }
    rest = {
        "data": {"class_path": "igpt_datamodules.Digits", "init_args": {"batch_size": 32}},
        "trainer": trainer,
        "samples": {"num": 0, "completions": 0},
        "checkpoint": {"every_n_train_steps": 4},
    }
    config = tmp_path / "mini.yaml"
    config.write_text(f"{small_model(digits_run.palette)}\n{yaml.safe_dump(rest)}")

    def run(folder, *options):
        code, _, err = igpt("fit", "--config", config, "--runs_dir", tmp_path / folder, *options)
        assert code in (0, 75), err
        return tmp_path / folder / "mini", code

    return run


@pytest.fixture(params=["32-true", "bf16-mixed", "16-mixed"])
def precision(request, device):
    if request.param == "16-mixed" and device.type != "cuda":
        pytest.skip("no scaler")
    return ["--trainer.precision", request.param]


def test_a_stopped_run_goes_on_and_ends_with_the_same_bits(device, fit, precision):
    if device.type == "mps":
        pytest.skip("sums without an order")
    whole, _ = fit("whole", *precision)
    assert fit("cut", *precision, *stop(5))[1] == 75
    cut, code = fit("cut", *precision, "--ckpt_path", "last")
    assert code == 0
    assert_same_end(cut, whole)
    found = losses(whole)
    assert found["val/loss", STEPS - 1].pop() < found["train/loss", 0].pop() == pytest.approx(math.log(17), abs=1e-3)
    scaler = read_checkpoint(whole / "checkpoints" / "last.ckpt").get("MixedPrecision")
    assert bool(scaler and scaler["scale"] > 1) == ("16-mixed" in precision)


def test_worker_processes_bring_the_batches_of_none(fit):
    alone, _ = fit("alone", "--trainer.precision", "32-true")
    two, _ = fit("two", "--trainer.precision", "32-true", "--data.init_args.num_workers", 2)
    assert len(losses(two)) == STEPS + 2
    assert losses(two) == losses(alone)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["AR", "BERT", "joint"])
def test_between_log_points_no_step_waits_for_the_gpu(device, digits_run, igpt, tmp_path, kind, workers):
    if device.type != "cuda":
        pytest.skip("only CUDA tells")
    options = "--trainer.accelerator", "gpu", "--data.init_args.num_workers", workers
    found, *_ = watched_run(igpt, digits_run.palette, tmp_path, kind, *options, waits=True)
    assert len(found["steps"]) == 16
    assert found["reads"] == {}
    assert found["at"]  # where values are logged, they are waited for


def test_what_a_gpu_trained_the_cpu_loads(fit):
    folder, _ = fit("run", "--trainer.precision", "32-true")
    loaded = api.load(folder / "checkpoints" / "last.ckpt", device="cpu")
    assert {one.device.type for one in loaded.module.state_dict().values()} == {"cpu"}
    assert loaded.step == STEPS


@pytest.fixture
def accuracies(digits_run, igpt, tmp_path):
    """`accuracies(accelerator, options...)`: of `igpt probe`, by every method and of every layer, test accuracies and
    what was chosen on validation: strength, rate, number of neighbours."""

    def of(accelerator, *options):
        code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--accelerator", accelerator, "--method", "all",
                            "--epochs", 5, "--out", tmp_path / accelerator, *options)  # fmt: skip
        assert code == 0, err
        methods = json.loads((tmp_path / accelerator / "probe.json").read_text())["methods"]
        rows = [
            [(row["test_accuracy"], row[METHODS[name].chosen]) for row in one["layers"]]
            for name, one in methods.items()
        ]
        return np.array(rows).transpose(2, 0, 1)

    return of


@pytest.mark.parametrize(("options", "alike", "images"), [(EXACT, 8, 3), ([], 4, 8)], ids=["exact", "default"])
def test_probes_that_make_the_same_choice_are_as_accurate_as_on_the_cpu(
    accelerator, accuracies, options, alike, images
):
    (found, chosen), (expected, choice) = accuracies(accelerator, *options), accuracies("cpu", *EXACT)
    assert found.shape == expected.shape == (3, 4)
    same = chosen == choice  # an image more or less of 144 may tip the choice
    assert same.sum() >= alike
    assert np.abs(found - expected)[same].max() * 359 < images + 0.5, (found - expected) * 359


def test_the_test_verb_finds_the_test_images_as_likely_as_the_cpu_does(accelerator, digits_run, igpt, tmp_path):
    found = {}
    for name in {accelerator, "cpu"}:
        code, _, err = igpt("test", "--config", digits_run.config, "--runs_dir", tmp_path / name, "--ckpt_path",
                            digits_run.checkpoint, "--trainer.accelerator", name, "--tf32", "false")  # fmt: skip
        assert code == 0, err
        (entry,) = json.loads((tmp_path / name / "mini" / "scores.json").read_text())
        found[name] = entry["metrics"]["test/loss"], *(entry["likelihood"][key] for key in ("mean_nats", "std_nats"))
    assert found[accelerator] == pytest.approx(found["cpu"], rel=1e-4)


@pytest.mark.parametrize("run", ["digits_run", "digits_bert_run"])
def test_the_likeliest_completions_are_those_of_the_cpu(accelerator, request, igpt, tmp_path, run):
    checkpoint = request.getfixturevalue(run).checkpoint
    for name in {accelerator, "cpu"}:
        code, _, err = igpt("sample", "--ckpt", checkpoint, "--rows", 4, "--num", 1, "--top_k", 1, "--accelerator",
                            name, *EXACT, "--out", tmp_path / f"{name}.png")  # fmt: skip
        assert code == 0, err
    assert np.array_equal(np.load(tmp_path / f"{accelerator}.npy"), np.load(tmp_path / "cpu.npy"))


def test_surprise_is_that_of_the_cpu(accelerator, digits_run, igpt, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "noise.png")
    for name in {accelerator, "cpu"}:
        code, _, err = igpt("surprise", tmp_path / "noise.png", "--ckpt", digits_run.checkpoint, "--accelerator", name,
                            *EXACT, "--out", tmp_path / name / "out.png")  # fmt: skip
        assert code == 0, err
    found, expected = (np.load(tmp_path / name / "out.npy") for name in (accelerator, "cpu"))
    np.testing.assert_allclose(found, expected, atol=1e-3)
