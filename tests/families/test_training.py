"""Every family through `igpt fit`: resuming to the bit, records, evaluation, and one-line refusals."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from igpt.checkpoints import read_checkpoint
from igpt.modules import load
from igpt.report.reading import gather
from igpt.report.tables import lacking
from igpt.system import UserError
from tests.families.conftest import MODELS
from tests.test_resume import same

EXACT = {"PixelCNN": True, "VAE": False, "Flow": False, "Glow": False}  # and the others have no likelihood
every_family = pytest.mark.parametrize("name", MODELS)


@every_family
def test_a_run_that_was_stopped_ends_with_the_bits_of_one_that_was_not(name, whole, fit, tmp_path):
    assert fit(name, tmp_path, "--trainer.max_steps", 12, "--trainer.limit_train_batches", 1.0) == 0
    first = tmp_path / name / "checkpoints" / "step=0000004.ckpt"
    torch.manual_seed(99)  # nothing may hang on the state of torch's own generator
    assert fit(name, tmp_path / "on", "--ckpt_path", first) == 0
    one = read_checkpoint(whole(name) / "checkpoints" / "last.ckpt")
    other = read_checkpoint(tmp_path / "on" / name / "checkpoints" / "last.ckpt")
    assert one["global_step"] == other["global_step"] == 12
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert same(one[part], other[part]), part


@every_family
def test_losses_fall_and_are_logged_with_samples_where_there_are_some(name, whole):
    events = EventAccumulator(str(whole(name)), {"scalars": 0, "images": 0})
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    begun = 2 if name == "MoCo" else 0  # its queue begins with keys of no picture, which are told apart at once
    assert losses[-1] < losses[begun]
    assert events.Scalars("val/loss")
    assert ("samples" in events.Tags()["images"]) == load_family(whole(name)).offers("sample")


def load_family(folder):
    from igpt.families import open_source

    return open_source(str(folder))


@every_family
def test_a_checkpoint_is_probed_by_one_command_and_stands_in_the_report(name, whole, igpt, tmp_path):
    code, _, err = igpt("probe", "--ckpt", whole(name), "--method", "knn", "--out", tmp_path / "p")
    assert code == 0, err
    found = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert (found["model"], found["step"]) == (name, 12)
    assert found["layer_names"] == list(load_family(whole(name)).layers)
    assert found.get("likelihood", {}).get("exact") is EXACT.get(name)
    code, _, err = igpt("report", whole(name), "--out", tmp_path / "report.html")
    assert code == 0, err
    assert name in (tmp_path / "report.html").read_text()


@every_family
def test_igpt_test_keeps_its_figures(name, whole, igpt):
    folder = whole(name)
    code, _, err = igpt("test", "--config", folder / "config.yaml", "--ckpt_path", folder / "checkpoints" / "last.ckpt")
    assert code == 0, err
    (entry,) = json.loads((folder / "scores.json").read_text())
    assert entry["metrics"]["test/loss"] > 0
    assert entry["model"]["class_path"].rpartition(".")[2] == name
    assert "exact likelihood of the test images" not in dict(lacking(gather(str(folder))))  # `igpt test` gives none


@every_family
def test_verbs_that_draw_pixels_one_by_one_say_what_takes_it(name, whole, igpt, tmp_path):
    folder = whole(name)
    with pytest.raises(UserError, match="predicts no pixels one by one"):
        load(folder / "checkpoints" / "last.ckpt")
    code, _, err = igpt("sample", "--ckpt", folder, "--out", tmp_path / "s.png")
    assert (code, err.count("\n")) == (2, 1), err
    code, _, err = igpt("export", "--ckpt", folder, "--out", tmp_path / "e")
    assert (code, err.count("\n")) == (2, 1), err


@pytest.mark.parametrize("name", ["VAE", "Flow", "SimCLR"])
def test_checkpoints_that_name_a_family_by_the_file_where_it_stood_first_still_open(name, whole, tmp_path):
    content = torch.load(whole(name) / "checkpoints" / "last.ckpt", weights_only=True)
    content["igpt"]["model"]["class_path"] = f"igpt.families.{name.lower()}.{name}"
    torch.save(content, tmp_path / "old.ckpt")
    assert type(load_family(tmp_path / "old.ckpt")).__name__ == name


def test_a_run_goes_on_with_its_own_network_alone(whole, fit, tmp_path, capsys):
    last = whole("VAE") / "checkpoints" / "last.ckpt"
    assert fit("VAE", tmp_path, "--ckpt_path", last, "--model.init_args.width", 16) == 2
    assert "the checkpoint has network width 8 (now 16); use its config" in capsys.readouterr().err


def test_images_of_another_size_are_one_line(fit, tmp_path, capsys):
    assert fit("VAE", tmp_path, "--data.init_args.resolution", 16) == 2
    assert "the images are 16x16, but model.init_args.resolution is 8x8" in capsys.readouterr().err


def test_a_checkpoint_that_asks_for_more_memory_than_it_holds_is_refused(whole, tmp_path):
    content = torch.load(whole("VAE") / "checkpoints" / "last.ckpt", weights_only=True)
    content["igpt"]["model"]["init_args"]["width"] = 100_000  # 4 TB of weights
    torch.save(content, tmp_path / "large.ckpt")
    with pytest.raises(UserError, match="weights do not fit the model it names"):
        load(tmp_path / "large.ckpt")
