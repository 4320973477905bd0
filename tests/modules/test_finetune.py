"""BERT and joint fine-tuning through the real commands, on the digits."""

import json
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import igpt as api
from igpt.checkpoints.format import META
from igpt.data import rng_of
from igpt.report import markdown, sections
from igpt.report.reading import gather
from igpt.system.errors import UserError
from igpt_datamodules import Digits
from tests.conftest import REPO


def events_of(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def fit(igpt, run, tmp_path, name, *options, model):
    """`igpt fit` with the digits run's config and another model block."""
    config = yaml.safe_load(run.config.read_text())
    config["model"] = model
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    code, _, err = igpt("fit", "--config", path, "--runs_dir", tmp_path, "--trainer.max_steps", 10, *options)
    assert code == 0, err
    return tmp_path / name


def bert_model(run):
    shape = {"n_layers": 3, "d_model": 32, "n_heads": 4, "n_positions": 64, "vocab_size": 17, "sos": False}
    return {
        "class_path": "igpt.modules.BERT",
        "init_args": {"transformer": shape, "palette": str(run.palette), "learning_rate": 0.01},
    }


def joint_model(**options):
    return {"class_path": "igpt.modules.Joint", "init_args": {"num_classes": 10, "learning_rate": 0.003, **options}}


def test_bert_trains_validates_the_same_twice_and_probes(digits_run, igpt, tmp_path):
    folder = fit(igpt, digits_run, tmp_path, "bert", model=bert_model(digits_run))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    losses = []
    for _ in range(2):
        code, out, err = igpt("validate", "--config", folder / "config.yaml", "--ckpt_path", checkpoint)
        assert code == 0, err
        losses.append(next(line.split()[-1] for line in out.splitlines() if "val/loss" in line))
    assert losses[0] == losses[1]
    code, out, err = igpt("probe", "--ckpt", checkpoint, "--out", tmp_path / "probe")
    assert code == 0, err


def test_validation_leaves_the_training_masks_alone(digits_run, igpt, tmp_path):
    """The same weights come out however often one validates in between."""
    folders = [
        fit(
            igpt,
            digits_run,
            tmp_path,
            f"bert{every}",
            "--trainer.val_check_interval",
            every,
            model=bert_model(digits_run),
        )
        for every in (2, 10)
    ]
    states = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in folders]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_joint_fine_tuning_starts_from_the_checkpoint_and_logs_both_losses(digits_run, igpt, tmp_path, weight):
    model = joint_model(pretrained=str(digits_run.checkpoint), generative_weight=weight, warmup_steps=2)
    folder = fit(
        igpt, digits_run, tmp_path, "joint", "--trainer.max_steps", 60, "--trainer.val_check_interval", 30, model=model
    )
    events = events_of(folder)
    tags = set(events.Tags()["scalars"])
    assert {"val/accuracy", "val/top5_accuracy", "val/class_loss", "val/generative_loss", "train/loss"} <= tags
    assert "val/confusion" in events.Tags()["images"]
    assert events.Scalars("val/class_loss")[-1].value < np.log(10)
    generative = events.Scalars("val/generative_loss")[0].value
    assert (generative == 0) if weight == 0 else (0.5 < generative < 2.8)
    rates = [event.value for event in events.Scalars("lr-Adam")]
    assert rates == sorted(rates)  # warm-up and no cosine
    loaded = api.load(folder / "checkpoints" / "last.ckpt")
    before = api.load(digits_run.checkpoint).module
    assert torch.equal(loaded.module.core.palette.colors, before.palette.colors)
    changed = (loaded.module.core.transformer.wpe - before.transformer.wpe).abs().max()
    assert 0 < changed < 0.5


def test_a_fine_tuned_checkpoint_is_tested_probed_and_sampled_like_any_other(digits_run, igpt, tmp_path):
    folder = fit(igpt, digits_run, tmp_path, "joint", model=joint_model(pretrained=str(digits_run.checkpoint)))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    code, out, err = igpt("test", "--config", folder / "config.yaml", "--ckpt_path", checkpoint)
    assert code == 0, err
    printed = float(next(line.split()[-1] for line in out.splitlines() if "test/accuracy" in line))
    loaded = api.load(checkpoint)
    data = loaded.data()
    images = torch.stack([data.images("test")[i][0] for i in range(359)])
    labels = torch.as_tensor(data.images("test").labels)
    with torch.no_grad():
        predicted, _ = loaded.module.predict_classes(loaded.module.core.encode(images), rng_of(0))
    assert printed == pytest.approx((predicted == labels).float().mean().item(), abs=0.003)
    assert igpt("probe", "--ckpt", checkpoint, "--layers", "3", "--out", tmp_path / "p")[0] == 0
    assert igpt("sample", "--ckpt", checkpoint, "--num", "2", "--out", tmp_path / "s.png")[0] == 0


def test_a_fine_tuned_run_keeps_its_confusion_by_class_and_where_it_began_also_when_it_goes_on(
    digits_run, igpt, tmp_path
):
    folder = fit(igpt, digits_run, tmp_path, "joint", model=joint_model(pretrained=str(digits_run.checkpoint)))
    config = ["--config", folder / "config.yaml", "--runs_dir", tmp_path, "--ckpt_path", "last"]
    began = {"checkpoint": str(digits_run.checkpoint), "step": 30}
    older = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    del older["igpt"]["began"]
    torch.save(older, tmp_path / "older.ckpt")
    assert igpt("validate", *config[:-1], tmp_path / "older.ckpt")[0] == 0
    for step in (10, 12):
        content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert (content["global_step"], content["igpt"]["began"]) == (step, began)
        code, _, err = igpt("fit", *config, "--trainer.max_steps", 12)
        assert code == 0, err
    code, out, err = igpt("test", *config)
    assert code == 0, err
    validated, entry = json.loads((folder / "scores.json").read_text())
    assert validated["began"] == {"checkpoint": str(digits_run.checkpoint)}  # from the config
    counts = torch.tensor(entry["confusion"]["counts"])
    assert entry["confusion"]["classes"] == [str(digit) for digit in range(10)]
    assert (counts.shape, counts.sum()) == ((10, 10), 359)
    assert counts.trace() / 359 == pytest.approx(entry["metrics"]["test/accuracy"])
    assert f"test accuracy {100 * entry['metrics']['test/accuracy']:.1f} %" in out
    assert entry["began"] == began
    run = gather(str(folder))
    assert (run.origin, run.began.checkpoint, run.began.step) == ("AR", str(digits_run.checkpoint), 30)
    assert igpt("export", "--ckpt", folder, "--format", "safetensors", "--out", tmp_path / "out")[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "began with" in card
    assert f"test/accuracy on Digits 8x8 | {100 * entry['metrics']['test/accuracy']:.1f} %" in card
    text = markdown("t", "s", sections([run]))
    assert "fine-tuned AR, from mini at step 30" in text
    assert "Confusion of classes of joint" in text


def test_a_network_that_starts_from_another_says_which(digits_run, igpt, tmp_path):
    spec = bert_model(digits_run)
    spec["class_path"] = "igpt.modules.Autoregressive"
    spec["init_args"] |= {"start_from": str(digits_run.checkpoint), "palette": None}
    spec["init_args"]["transformer"]["sos"] = True
    folder = fit(igpt, digits_run, tmp_path, "again", model=spec)
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["igpt"]["began"] == {"checkpoint": str(digits_run.checkpoint), "step": 30}
    assert torch.load(digits_run.checkpoint, weights_only=True)["igpt"]["began"] is None


def test_a_fine_tuned_checkpoint_needs_no_pretrained_file_any_more(digits_run, igpt, tmp_path):
    source = tmp_path / "source.ckpt"
    source.write_bytes(digits_run.checkpoint.read_bytes())
    folder = fit(igpt, digits_run, tmp_path, "joint", model=joint_model(pretrained=str(source)))
    source.unlink()
    code, out, err = igpt(
        "test", "--config", folder / "config.yaml", "--ckpt_path", folder / "checkpoints" / "last.ckpt"
    )
    assert code == 0, err
    assert "test/accuracy" in out


def test_fewer_classes_than_the_data_have_is_one_line(digits_run, igpt, tmp_path):
    config = yaml.safe_load(digits_run.config.read_text())
    config["model"] = {**joint_model(pretrained=str(digits_run.checkpoint))}
    config["model"]["init_args"]["num_classes"] = 4
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(config))
    code, _, err = igpt("fit", "--config", tmp_path / "few.yaml", "--runs_dir", tmp_path / "runs")
    assert code == 2
    assert "num_classes is 4 but the data have 10" in err
    assert not (tmp_path / "runs").exists()


def test_starting_from_another_order_moves_each_position_to_its_pixel(digits_run):
    shape = {"n_layers": 3, "d_model": 32, "n_heads": 4, "n_positions": 64, "vocab_size": 17}
    raster = api.load(digits_run.checkpoint).module.transformer.wpe
    spiral = api.Autoregressive(shape, order="spiral", start_from=str(digits_run.checkpoint))
    assert torch.equal(spiral.transformer.wpe, raster[spiral.pixel_order])


def test_from_scratch_and_from_bert(digits_run, igpt, tmp_path):
    bert = fit(igpt, digits_run, tmp_path, "bert", model=bert_model(digits_run))
    model = joint_model(pretrained=str(bert / "checkpoints" / "last.ckpt"), eval_masks=3)
    fit(igpt, digits_run, tmp_path, "joint_bert", model=model)
    scratch = joint_model(generative=bert_model(digits_run), evaluation="mean")
    folder = fit(igpt, digits_run, tmp_path, "joint_scratch", model=scratch)
    assert api.load(folder / "checkpoints" / "last.ckpt").module.evaluation == "mean"


def test_a_run_starts_from_another_checkpoint_at_another_resolution(digits_run, igpt, tmp_path):
    shape = {"n_layers": 3, "d_model": 32, "n_heads": 4, "n_positions": 144, "vocab_size": 17}
    model = {
        "class_path": "igpt.modules.Autoregressive",
        "init_args": {"transformer": shape, "start_from": str(digits_run.checkpoint), "learning_rate": 1e-9},
    }
    folder = fit(igpt, digits_run, tmp_path, "larger", "--data.init_args.resolution", 12, model=model)
    small, large = (api.load(path).module for path in (digits_run.checkpoint, folder / "checkpoints" / "last.ckpt"))
    assert large.transformer.wpe.shape == (144, 32)
    torch.testing.assert_close(large.transformer.wte.weight, small.transformer.wte.weight, atol=1e-5, rtol=0)
    corner = large.transformer.wpe[0] - small.transformer.wpe[0]
    assert corner.abs().max() < small.transformer.wpe.std()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (joint_model(), "either pretrained"),
        (joint_model(pretrained="gone.ckpt"), "gone.ckpt does not exist"),
        (joint_model(pretrained="x", generative=None, generative_weight=-1), "generative_weight"),
    ],
)
def test_a_joint_module_that_cannot_be_made_is_one_line(digits_run, igpt, tmp_path, model, words):
    config = yaml.safe_load(digits_run.config.read_text())
    config["model"] = model
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    code, _, err = igpt("fit", "--config", tmp_path / "wrong.yaml", "--runs_dir", tmp_path)
    lines = [line for line in err.splitlines() if line.startswith("igpt fit:")]
    assert code == 2
    assert len(lines) == 1
    assert words in lines[0]


def test_bert_refuses_a_start_of_sequence_and_shares_that_are_none(digits_run, igpt, tmp_path):
    code, _, err = igpt(
        "fit", "--config", REPO / "configs" / "digits" / "bert.yaml", "--model.init_args.transformer.sos", "true"
    )
    assert code == 2
    assert "transformer.sos" in err
    code, _, err = igpt(
        "fit", "--config", REPO / "configs" / "digits" / "bert.yaml", "--model.init_args.mask_share", "1.5"
    )
    assert code == 2
    assert "mask_share" in err


def test_a_low_data_run_keeps_the_list_of_its_images(digits_run, igpt, tmp_path):
    model = joint_model(pretrained=str(digits_run.checkpoint))
    options = [
        "--trainer.log_every_n_steps",
        1,
        "--data.init_args.split.labels_per_class",
        4,
        "--data.init_args.split.subset_seed",
        2,
    ]
    folder = fit(igpt, digits_run, tmp_path, "few", *options, model=model)
    indices = json.loads((folder / "subset.json").read_text())["train_indices"]
    data = api.load(folder / "checkpoints" / "last.ckpt").data()
    data.setup()
    assert data.train_indices == indices
    assert torch.bincount(torch.as_tensor(data.images("train").labels)).tolist() == [4] * 10


@pytest.mark.parametrize(("kind", "passes"), [(api.Autoregressive, 1), (api.BERT, 1 + 3)])
def test_evaluation_reads_a_batch_once_for_the_losses_and_once_for_each_mask(digits_run, kind, passes):
    shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_positions": 64, "vocab_size": 17, "sos": kind.causal}
    torch.manual_seed(0)
    joint = api.Joint(10, generative=kind(shape, palette=str(digits_run.palette)), eval_masks=3)
    torch.nn.init.normal_(joint.classifier.weight)
    calls = []
    joint.core.transformer.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    data = Digits(batch_size=100)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False)  # fmt: skip
    scores = trainer.validate(joint, datamodule=data, verbose=False)[0]
    assert len(calls) == math.ceil(data.size("val") / 100) * passes
    if kind.causal:
        images, labels = (torch.cat(parts) for parts in zip(*data.loader("val"), strict=True))
        with torch.inference_mode():
            predicted, logits = joint.predict_classes(joint.core.encode(images), rng_of(0))
        assert len(predicted.unique()) > 1
        assert scores["val/accuracy"] == pytest.approx((predicted == labels).float().mean().item())
        top5 = (logits.topk(5).indices == labels[:, None]).any(1).float().mean().item()
        assert scores["val/top5_accuracy"] == pytest.approx(top5)


@pytest.mark.parametrize("option", ["start_from", "pretrained"])
def test_a_checkpoint_in_parts_is_no_missing_one_and_the_line_says_how_to_make_a_file_of_it(
    digits_run, igpt, tmp_path, option
):
    (tmp_path / "last.ckpt").mkdir()
    (tmp_path / "last.ckpt" / META).touch()
    path = str(tmp_path / "last.ckpt")
    config = yaml.safe_load(digits_run.config.read_text())
    if option == "pretrained":
        config["model"] = joint_model(pretrained=path)
    else:
        config["model"]["init_args"]["start_from"] = path
    (tmp_path / "parts.yaml").write_text(yaml.safe_dump(config))
    code, _, err = igpt("fit", "--config", tmp_path / "parts.yaml", "--runs_dir", tmp_path / "runs")
    lines = [line for line in err.splitlines() if line.startswith("igpt fit:")]
    assert (code, len(lines)) == (2, 1), err
    assert f"{path} is sharded; make a file of it: igpt export --ckpt {path} --format checkpoint" in lines[0]


@pytest.mark.parametrize("kind", [api.Autoregressive, api.BERT])
def test_a_module_starts_from_weights_of_its_own_kind_alone(digits_run, digits_bert_run, kind):
    shape = {"n_layers": 3, "d_model": 32, "n_heads": 4, "n_positions": 64, "vocab_size": 17, "sos": kind.causal}
    own, other = (digits_run, digits_bert_run) if kind.causal else (digits_bert_run, digits_run)
    with pytest.raises(UserError, match=f"{other.checkpoint}.*{kind.__name__} takes weights of its own kind"):
        kind(shape, start_from=str(other.checkpoint))
    started = kind(shape, start_from=str(own.checkpoint))
    assert torch.equal(started.transformer.wpe, api.load(own.checkpoint).module.transformer.wpe)


class Silent(api.Autoregressive):
    """Its weights never fit, and it does not say why."""

    def load_state_dict(self, *_, **__):
        raise ValueError


def test_an_error_without_words_is_named_by_its_class(digits_run):
    shape = {"n_layers": 3, "d_model": 32, "n_heads": 4, "n_positions": 64, "vocab_size": 17}
    with pytest.raises(UserError, match=r"does not fit this model: ValueError$"):
        Silent(shape, start_from=str(digits_run.checkpoint))
