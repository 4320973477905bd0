"""The probe during training: right, seeded, and without a trace in the training itself."""

import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from igpt import load
from igpt.callbacks import OnlineProbe
from igpt.callbacks.online_probe import layer_features, probe_scores, some_images, undisturbed
from igpt.data import ImageDataModule, TensorImages
from igpt.modules import BERT, Joint
from igpt.system.errors import UserError
from igpt_datamodules import Digits


def fit(igpt, run, folder, *options, probe=None):
    callbacks = [] if probe is None else [{"class_path": "igpt.callbacks.OnlineProbe", "init_args": probe}]
    return igpt("fit", "--config", run.config, "--runs_dir", folder, "--samples.num", 0, "--samples.completions", 0,
                "--trainer.callbacks", json.dumps(callbacks), *options)  # fmt: skip


def logged(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "mini"))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_accuracy_is_logged_at_every_nth_step_and_training_is_the_same_to_the_bit(digits_run, igpt, tmp_path):
    probe = {"layers": [3, 1], "every_n_steps": 7, "train_images": 100, "val_images": 50}
    assert fit(igpt, digits_run, tmp_path / "with", "--trainer.max_steps", 16, probe=probe)[0] == 0
    assert fit(igpt, digits_run, tmp_path / "without", "--trainer.max_steps", 16)[0] == 0
    scalars = logged(tmp_path / "with")
    assert [name for name in sorted(scalars) if name.startswith("probe/")] == [
        "probe/best",
        "probe/layer_1",
        "probe/layer_3",
    ]
    assert list(scalars["probe/layer_1"]) == [7, 14]
    for step, best in scalars["probe/best"].items():
        assert best == max(scalars["probe/layer_1"][step], scalars["probe/layer_3"][step])
        assert best > 0.3  # ten classes: far above chance
    one, other = (
        torch.load(tmp_path / name / "mini" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("with", "without")
    )
    assert all(torch.equal(one[key], other[key]) for key in other)


def fitted(make, callbacks):
    pl.seed_everything(3, verbose=False)
    module = make()
    trainer = pl.Trainer(max_steps=6, callbacks=callbacks, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0)  # fmt: skip
    trainer.fit(module, datamodule=Digits(batch_size=32))
    return module, trainer.callback_metrics


@pytest.mark.parametrize("joint", [False, True])
def test_bert_and_joint_modules_are_probed_and_train_the_same_to_the_bit(digits_run, joint):
    shape = {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_positions": 64, "vocab_size": 17, "sos": False}

    def make():
        bert = BERT(shape, palette=str(digits_run.palette))
        return Joint(num_classes=10, generative=bert) if joint else bert

    probed, metrics = fitted(make, [OnlineProbe(every_n_steps=3, train_images=200, val_images=50)])
    plain, _ = fitted(make, [])
    splits = {name: some_images(Digits(), name, count, 0) for name, count in (("train", 200), ("val", 50))}
    with undisturbed(probed):
        features = {name: layer_features(probed, images, [0, 1, 2], 32) for name, (images, _) in splits.items()}
    expected = probe_scores(features, {name: labels for name, (_, labels) in splits.items()}, 0.001)
    assert [metrics[f"probe/layer_{layer}"].item() for layer in (0, 1, 2)] == pytest.approx(expected)
    assert metrics["probe/best"].item() == pytest.approx(max(expected))
    state = plain.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in probed.state_dict().items())


def test_the_accuracy_is_that_of_an_independent_logistic_regression(digits_run):
    module, data = load(digits_run.checkpoint).module, Digits()
    splits = {name: some_images(data, name, count, 0) for name, count in (("train", 400), ("val", 144))}
    with undisturbed(module):
        features = {name: layer_features(module, images, [2], 64) for name, (images, _) in splits.items()}
    labels = {name: labels for name, (_, labels) in splits.items()}
    score = probe_scores(features, labels, 0.01)[0]
    train, val = (features[name][0].double().numpy() for name in ("train", "val"))
    mean, deviation = train.mean(0), train.std(0)
    reference = LogisticRegression(C=1 / (0.01 * 400), max_iter=5000, tol=1e-8)
    reference.fit((train - mean) / deviation, labels["train"].numpy())
    expected = reference.score((val - mean) / deviation, labels["val"].numpy())
    assert abs(score - expected) <= 1 / 144 + 1e-6  # one image, where rounding decides


def test_images_are_chosen_by_the_seed_alone():
    torch.manual_seed(1)
    first, labels = some_images(Digits(), "train", 30, 5)
    torch.manual_seed(2)
    assert torch.equal(first, some_images(Digits(), "train", 30, 5)[0])
    assert not torch.equal(first, some_images(Digits(), "train", 30, 6)[0])
    assert first.shape == (30, 3, 8, 8)
    assert labels.shape == (30,)
    assert len(some_images(Digits(), "val", 10_000, 0)[1]) == 144


def test_random_numbers_and_the_mode_of_every_part_are_as_before(digits_run):
    module = load(digits_run.checkpoint).module.train()
    frozen = module.core.transformer.blocks[1].eval()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    state = np.random.get_state()[1].copy()
    with undisturbed(module):
        assert not any(part.training for part in module.modules())
        assert not torch.is_grad_enabled()
        torch.rand(100)
        np.random.rand(5)
    assert torch.equal(torch.rand(3), expected)
    assert (np.random.get_state()[1] == state).all()
    assert module.training
    assert not any(part.training for part in frozen.modules())
    assert torch.is_grad_enabled()


class Unlabelled(ImageDataModule):
    def load(self):
        images = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
        return {name: TensorImages(images, torch.full((40,), -1)) for name in ("train", "test")}


class OneClass(ImageDataModule):
    def load(self):
        images = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
        return {name: TensorImages(images, torch.zeros(40)) for name in ("train", "test")}


@pytest.mark.parametrize(("data", "words"), [(Unlabelled, "without a label"), (OneClass, "same label")])
def test_data_that_cannot_be_probed_are_refused(data, words):
    with pytest.raises(UserError, match=words):
        some_images(data(resolution=8), "train", 10, 0)


@pytest.mark.parametrize(("layers", "words"), [([4], "layers 0 to 3"), ([-1], "layers 0 to 3"), ([], "layers 0 to 3")])
def test_a_layer_that_does_not_exist_is_one_line_before_training(digits_run, igpt, tmp_path, layers, words):
    code, _, err = fit(igpt, digits_run, tmp_path / "runs", "--trainer.max_steps", 2, probe={"layers": layers})
    assert code == 2
    assert "OnlineProbe.layers" in err
    assert words in err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    "wrong", [{"every_n_steps": 0}, {"train_images": 0}, {"val_images": 0}, {"l2": 0.0}, {"strength": 0.0}]
)
def test_a_value_out_of_range_is_refused(wrong):
    with pytest.raises(UserError, match="OnlineProbe"):
        OnlineProbe(**wrong)
