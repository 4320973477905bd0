"""`igpt fit`, `validate`, `test` and `predict`, on the digits."""

import json

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import igpt as api
from igpt.data import SPLITS
from igpt.model.objectives import next_pixel_loss
from igpt_datamodules import Digits


@pytest.fixture(scope="module")
def events(digits_run):
    accumulator = EventAccumulator(str(digits_run.folder))
    accumulator.Reload()
    return accumulator


def test_a_run_writes_its_config_events_and_checkpoints(digits_run):
    assert yaml.safe_load((digits_run.folder / "config.yaml").read_text())["trainer"]["max_steps"] == 30
    names = sorted(path.name for path in (digits_run.folder / "checkpoints").glob("*.ckpt"))
    assert names == ["last.ckpt", "step=0000020.ckpt", "step=0000030.ckpt"]
    assert digits_run.checkpoint.resolve().name == "step=0000030.ckpt"


def test_loss_is_logged_in_nats_and_bits_and_falls(events):
    loss = {event.step: event.value for event in events.Scalars("val/loss")}
    bits = {event.step: event.value for event in events.Scalars("val/bits_per_pixel")}
    assert list(loss) == [14, 29]
    assert loss[29] < loss[14] < np.log(17)
    assert bits[29] == pytest.approx(loss[29] / np.log(2), rel=1e-5)


def test_the_rate_warms_up_over_one_epoch_and_falls_to_zero(events):
    rates = [event.value for event in events.Scalars("lr-Adam")]
    assert max(rates) <= 0.01
    assert rates[0] < rates[1]  # 40 steps are an epoch: 30 steps are warm-up alone
    assert {"train/images_per_second", "train/loss", "train/bits_per_pixel"} <= set(events.Tags()["scalars"])


def test_samples_and_completions_are_logged_at_every_validation(events):
    assert [event.step for event in events.Images("samples")] == [15, 30]
    assert [event.step for event in events.Images("completions")] == [15, 30]


def test_the_test_verb_gives_the_loss_of_all_test_pixels(digits_run, igpt):
    code, out, err = igpt("test", "--config", digits_run.config, "--runs_dir", digits_run.home / "runs", "--ckpt_path",
                          digits_run.checkpoint)  # fmt: skip
    assert code == 0, err
    module, data = api.load(digits_run.checkpoint).module, Digits()
    tokens = module.encode(torch.stack([data.images("test")[i][0] for i in range(359)]))
    with torch.no_grad():
        expected = next_pixel_loss(module.transformer(tokens, causal=True), tokens).item()
    printed = float(next(line.split()[-1] for line in out.splitlines() if "test/loss" in line))
    assert printed == pytest.approx(expected, rel=1e-5)


def test_predict_writes_the_features_of_every_split_as_the_transformer_has_them(digits_run, igpt):
    options = ["--runs_dir", digits_run.home / "runs", "--ckpt_path", digits_run.checkpoint]
    code, out, err = igpt("predict", "--config", digits_run.config, *options)
    assert code == 0, err
    assert f"wrote the features of every layer and split: {digits_run.folder / 'features'}" in out
    module, data = api.load(digits_run.checkpoint).module, Digits()
    for name, count in zip(SPLITS, (1294, 144, 359), strict=True):
        features = np.load(digits_run.folder / "features" / f"{name}_features.npy")
        assert features.shape == (4, count, 32)
        assert np.load(digits_run.folder / "features" / f"{name}_labels.npy").shape == (count,)
        images = torch.stack([data.images(name)[i][0] for i in range(count)])
        with torch.no_grad():
            expected = module.transformer.features(module.encode(images), [0, 1, 2, 3], causal=True)
        np.testing.assert_allclose(features, expected.numpy(), atol=2e-3, rtol=2e-3)  # float16


def test_an_earlier_run_of_the_same_name_is_kept(digits_run, igpt, tmp_path):
    arguments = ["fit", "--config", digits_run.config, "--runs_dir", tmp_path, "--trainer.max_steps", 1]
    for _ in range(2):
        code, _, err = igpt(*arguments)
        assert code == 0, err
    assert "mini.1" in err
    for name in ("mini", "mini.1"):
        assert (tmp_path / name / "checkpoints" / "last.ckpt").exists()


def test_going_on_with_ckpt_path_last_continues_the_steps(digits_run, igpt, tmp_path):
    arguments = ["fit", "--config", digits_run.config, "--runs_dir", tmp_path]
    assert igpt(*arguments, "--trainer.max_steps", 5)[0] == 0
    code, _, err = igpt(*arguments, "--trainer.max_steps", 8, "--ckpt_path", "last")
    assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "mini" / "checkpoints").glob("*.ckpt"))
    assert names == ["last.ckpt", "step=0000005.ckpt", "step=0000008.ckpt"]


@pytest.mark.parametrize("compile", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_bf16_and_compiled_blocks_train_and_keep_the_state_dict(digits_run, igpt, tmp_path, compile):
    """Compiled is slow: a compiled block and its gradients are in tests/test_fused.py."""
    code, _, err = igpt("fit", "--config", digits_run.config, "--runs_dir", tmp_path, "--trainer.max_steps", 3,
                        "--trainer.precision", "bf16-mixed", "--model.init_args.compile", compile)  # fmt: skip
    assert code == 0, err
    compiled = torch.load(tmp_path / "mini" / "checkpoints" / "last.ckpt", weights_only=True)
    plain = torch.load(digits_run.checkpoint, weights_only=True)
    assert compiled["state_dict"].keys() == plain["state_dict"].keys()
    assert api.load(tmp_path / "mini" / "checkpoints" / "last.ckpt").step == 3


def test_a_checkpoint_holds_plain_data_the_palette_and_what_it_was_trained_on(digits_run):
    content = torch.load(digits_run.checkpoint, weights_only=True)
    header = content["igpt"]
    assert json.loads(json.dumps(header)) == header
    assert header["data"]["class_path"] == "igpt_datamodules.digits.Digits"
    assert torch.equal(content["state_dict"]["palette.colors"], api.Palette.load(digits_run.palette).colors)


def test_a_checkpoint_needs_no_palette_file_any_more(digits_run, igpt, monkeypatch, tmp_path):
    code, out, err = igpt("validate", "--config", digits_run.config, "--runs_dir", tmp_path, "--ckpt_path",
                          digits_run.checkpoint, "--model.init_args.palette", "gone.npy")  # fmt: skip
    assert code == 0, err
    assert "val/loss" in out
