"""`igpt import`: what other verbs make of the checkpoint it writes."""

import hashlib
import json
import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import igpt as api
from igpt.checkpoints.format import read_checkpoint
from igpt.cli import main
from igpt.interop.alignment import aligned_nll
from igpt.model.transformer import PixelTransformer, TransformerConfig
from igpt.palette.palette import Palette
from igpt.system.errors import UserError
from igpt_datamodules import Digits
from tests.conftest import REPO
from tests.interop import bundles
from tests.interop.models import begun, colors, save, theirs
from tests.interop.test_openai import theirs as openai_weights

PALETTE = REPO / "palettes" / "digits.npy"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Their model for the digits, and the checkpoint that `igpt import` made of it, as a run's."""
    home = tmp_path_factory.mktemp("import")
    model = theirs("deep")
    save(model, home / "theirs")
    out = home / "runs" / "released" / "checkpoints" / "last.ckpt"
    assert main(["import", "--path", str(home / "theirs"), "--out", str(out), "--palette", str(PALETTE)]) == 0
    return home, model, out


def their_loss(model, split, count=None):
    """Their loss on the digits, in nats per pixel, over the sequence that begins with sos."""
    data, palette = Digits(), Palette.load(PALETTE)
    data.prepare_data()
    images = data.images(split)
    tokens = palette.encode(torch.stack([images[i][0] for i in range(count or data.size(split))]))
    with torch.inference_mode():
        logits = model(begun(tokens, 17)).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).item(), tokens


@pytest.mark.parametrize(("verb", "split", "metric"), [("validate", "val", "val/loss"), ("test", "test", "test/loss")])
def test_trainer_verbs_take_it_with_the_config_beside_and_find_their_loss(released, igpt, verb, split, metric):
    home, model, out = released
    code, text, err = igpt(verb, "--config", out.with_suffix(".yaml"), "--data", "Digits", "--ckpt_path", out,
                           "--runs_dir", home / "runs")  # fmt: skip
    assert code == 0, err
    found = float(next(line.split()[-1] for line in text.splitlines() if line.split()[:1] == [metric]))
    assert found == pytest.approx(their_loss(model, split)[0], abs=1e-4)


def test_probe_sample_and_report_take_it_like_a_run(released, igpt):
    home, _, out = released
    code, _, err = igpt("probe", "--ckpt", out, "--data", "Digits", "--layers", "0,5")
    assert code == 0, err
    code, _, err = igpt("sample", "--ckpt", out, "--num", "2", "--out", home / "drawn.png")
    assert code == 0, err
    assert np.load(home / "drawn.npy").shape == (2, 64)
    code, _, err = igpt("report", home / "runs" / "released", "--out", home / "report.html")
    assert code == 0, err
    assert "released" in (home / "report.md").read_text()


DIGITS = ["--data", "Digits", "--trainer.max_steps", "2", "--trainer.log_every_n_steps", "1", "--trainer.accelerator",
          "cpu", "--trainer.enable_progress_bar", "false", "--trainer.limit_val_batches", "1"]  # fmt: skip


def test_joint_fine_tuning_begins_with_its_weights(released, igpt, tmp_path):
    _, model, out = released
    code, _, err = igpt("fit", "--model", "Joint", "--model.num_classes", "10", "--model.pretrained", out, *DIGITS,
                        "--model.learning_rate", "1e-9", "--name", "joint", "--runs_dir", tmp_path)  # fmt: skip
    assert code == 0, err
    state = read_checkpoint(tmp_path / "joint" / "checkpoints" / "last.ckpt")["state_dict"]
    expected = model.state_dict()["transformer.h.2.attn.c_attn.weight"].T
    torch.testing.assert_close(state["generative.transformer.blocks.2.attn.qkv.weight"], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("way", ["start_from", "ckpt_path"])
def test_training_goes_on_from_its_weights(released, igpt, tmp_path, way):
    _, model, out = released
    extra = ["--ckpt_path", out] if way == "ckpt_path" else []  # else the config beside names it in start_from
    code, _, err = igpt("fit", "--config", out.with_suffix(".yaml"), "--model.learning_rate", "1e-9", *DIGITS, *extra,
                        "--name", "on", "--runs_dir", tmp_path)  # fmt: skip
    assert code == 0, err
    content = read_checkpoint(tmp_path / "on" / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 2
    expected = model.state_dict()["transformer.wpe.weight"]
    torch.testing.assert_close(content["state_dict"]["transformer.wpe"], expected, atol=1e-6, rtol=0)


def test_the_config_beside_names_the_run_and_nothing_of_the_recipe(released):
    _, _, out = released
    config = yaml.safe_load(out.with_suffix(".yaml").read_text())
    assert config["name"] == "released"
    assert set(config["model"]["init_args"]) == {"transformer", "start_from"}


def test_a_score_on_images_is_theirs_and_the_shifted_one_too(released, igpt, tmp_path):
    home, model, _ = released
    code, text, err = igpt("import", "--path", home / "theirs", "--palette", PALETTE, "--out", tmp_path / "x.ckpt",
                           "--data", "Digits", "--alignment", "huggingface")  # fmt: skip
    assert code == 0, err
    loss, tokens = their_loss(model, "test", 64)
    with torch.inference_mode():
        shifted = model(tokens, labels=tokens).loss.item()
    printed = [float(line.split()[0]) for line in text.splitlines() if line[0].isdigit()]
    assert printed == pytest.approx([loss, shifted], abs=2e-4)


def test_the_palette_of_the_folder_serves_where_none_is_named(igpt, tmp_path):
    folder = save(theirs("deep"), tmp_path / "theirs")
    code, _, err = igpt("import", "--path", folder, "--out", tmp_path / "x.ckpt")
    assert code == 0, err
    found = api.load(tmp_path / "x.ckpt").module.palette.colors
    code, _, err = igpt("import", "--path", folder, "--out", tmp_path / "y.ckpt", "--palette",
                        folder / "preprocessor_config.json")  # fmt: skip
    assert code == 0, err
    assert torch.equal(api.load(tmp_path / "y.ckpt").module.palette.colors, found)
    assert found.shape == (17, 3)


def test_a_trained_class_head_becomes_a_joint_checkpoint_and_one_of_zeros_does_not(igpt, tmp_path):
    file = save(theirs("deep"), tmp_path / "theirs") / "model.safetensors"
    head = torch.randn(10, 24)
    for name, weight in (("trained", head), ("zeros", torch.zeros(10, 24))):
        save_file(load_file(file) | {"score.weight": weight}, file)
        code, text, err = igpt("import", "--path", tmp_path / "theirs", "--out", tmp_path / f"{name}.ckpt")
        assert code == 0, err
        assert ("10 classes" if name == "trained" else "head of zeros") in text
    assert not (tmp_path / "zeros.classes.ckpt").exists()
    joint = api.load(tmp_path / "trained.classes.ckpt").module
    assert torch.equal(joint.classifier.weight, head)
    alone = api.load(tmp_path / "trained.ckpt").module
    for name, tensor in alone.state_dict().items():
        assert torch.equal(joint.state_dict()[f"generative.{name}"], tensor), name


@pytest.fixture
def bert(tmp_path):
    """A TensorFlow checkpoint of a BERT model for digits in 7 colours; its logits are all zero."""
    weights = openai_weights(causal=False, positions=64)
    weights["model/wtet"][:] = 0
    np.save(tmp_path / "kmeans_centers.npy", colors(7))  # the name it has among the released files
    return bundles.write(tmp_path / "bert", weights)


def test_a_bert_model_is_scored_at_masked_pixels_and_finds_its_palette_beside(igpt, tmp_path, bert):
    code, text, err = igpt("import", "--path", bert, "--out", tmp_path / "b.ckpt", "--data", "Digits")
    assert code == 0, err
    assert "BERT" in text
    assert f"{math.log(7):.4f} nats per masked pixel of the first 64 test images" in text


def test_a_bert_model_has_no_other_alignment(igpt, tmp_path, bert):
    code, _, err = igpt("import", "--path", bert, "--out", tmp_path / "b.ckpt", "--data", "Digits", "--alignment",
                        "huggingface")  # fmt: skip
    assert code == 2
    assert "--alignment huggingface is about autoregressive models" in err
    assert not (tmp_path / "b.ckpt").exists()
    with pytest.raises(UserError, match="no start of sequence"):
        aligned_nll(PixelTransformer(TransformerConfig(1, 8, 2, 4, 3, sos=False)), torch.zeros(1, 4).long())


def test_images_of_another_size_are_refused_by_their_option(released, igpt, tmp_path):
    home, _, _ = released
    code, _, err = igpt("import", "--path", home / "theirs", "--out", tmp_path / "x.ckpt", "--data", "SamplePhotos")
    assert code == 2
    assert "--data.resolution" in err
    assert not list(tmp_path.glob("x.*"))


def test_a_run_never_moves_away_what_it_begins_with(released, igpt, tmp_path):
    home, _, out = released
    shutil.copytree(home / "runs", tmp_path / "runs")
    folder = tmp_path / "runs" / "released"
    mine, linked = folder / "checkpoints" / "last.ckpt", tmp_path / "linked.ckpt"
    linked.symlink_to(mine)
    (folder / "link.ckpt").symlink_to(out)  # the link itself would be moved
    network = yaml.safe_load(out.with_suffix(".yaml").read_text())["model"]
    start = tmp_path / "start.yaml"
    start.write_text(yaml.safe_dump({"model": network}))  # a config outside, which starts elsewhere
    joint = {"class_path": "igpt.modules.Joint", "init_args": {"num_classes": 10}}
    for name, more in (("pretrained", {"pretrained": str(mine)}), ("generative", {"generative": network})):
        model = joint | {"init_args": joint["init_args"] | more}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"model": model}))
    nested = "--model.init_args.generative.init_args.start_from"
    for word, config, extra in (
        ("--config", mine.with_suffix(".yaml"), []),
        ("start_from", start, ["--model.init_args.start_from", mine]),
        ("start_from", start, ["--model.init_args.start_from", linked]),
        ("start_from", start, ["--model.init_args.start_from", folder / "link.ckpt"]),
        ("pretrained", tmp_path / "pretrained.yaml", []),
        (nested, tmp_path / "generative.yaml", [nested, mine]),
    ):
        before = sorted(tmp_path.rglob("*"))
        code, _, err = igpt("fit", "--config", config, *DIGITS, *extra, "--runs_dir", tmp_path / "runs",
                            "--name", "released")  # fmt: skip
        assert code == 2, err
        line = next(line for line in err.splitlines() if line.startswith("igpt"))
        assert word in line, line
        assert "--name released_more" in line
        assert sorted(tmp_path.rglob("*")) == before


def test_training_on_under_another_name_can_be_repeated(released, igpt, tmp_path):
    home, _, out = released
    for _ in range(2):
        code, _, err = igpt("fit", "--config", out.with_suffix(".yaml"), *DIGITS, "--runs_dir", home / "runs",
                            "--name", "released_more")  # fmt: skip
        assert code == 0, err
    assert read_checkpoint(out)["global_step"] == 0
    assert (home / "runs" / "released_more.1").is_dir()


def test_an_import_over_an_earlier_one_leaves_no_class_head_of_it(igpt, tmp_path):
    file = save(theirs("deep"), tmp_path / "theirs") / "model.safetensors"
    state = load_file(file)
    for head, left in ((torch.ones(10, 24), True), (torch.zeros(10, 24), False), (torch.ones(9, 24), True)):
        save_file(state | {"score.weight": head}, file)
        code, _, err = igpt("import", "--path", tmp_path / "theirs", "--out", tmp_path / "x.ckpt")
        assert code == 0, err
        assert (tmp_path / "x.classes.ckpt").exists() == left


def test_an_import_brings_its_own_checksum_also_over_a_file_that_had_one(digits_run, igpt, tmp_path):
    file = save(theirs("deep"), tmp_path / "theirs") / "model.safetensors"
    save_file(load_file(file) | {"score.weight": torch.ones(10, 24)}, file)
    for _ in range(2):
        code, _, err = igpt("import", "--path", tmp_path / "theirs", "--out", tmp_path / "one" / "model.ckpt")
        assert code == 0, err
    code, _, err = igpt("export", "--ckpt", tmp_path / "one" / "model.ckpt", "--format", "checkpoint", "--out",
                        tmp_path / "two")  # fmt: skip
    assert code == 0, err
    save_file({name: value * 2 for name, value in load_file(file).items()}, file)  # other weights, another checksum
    code, _, err = igpt("import", "--path", tmp_path / "theirs", "--out", tmp_path / "two" / "model.ckpt")
    assert code == 0, err
    for folder in ("one", "two"):
        for name in ("model.ckpt", "model.classes.ckpt"):
            path = tmp_path / folder / name
            words = path.with_name(f"{name}.sha256").read_text().split()
            assert words == [hashlib.sha256(path.read_bytes()).hexdigest(), name]
            assert api.load(path).step == 0
    kept = {"model.ckpt", "model.yaml", "model.classes.ckpt", "model.ckpt.sha256", "model.classes.ckpt.sha256"}
    assert {path.name for path in (tmp_path / "one").iterdir()} == kept
    save_file(load_file(file) | {"score.weight": torch.zeros(10, 24)}, file)
    code, _, err = igpt("import", "--path", tmp_path / "theirs", "--out", tmp_path / "one" / "model.ckpt")
    assert code == 0, err
    assert not list((tmp_path / "one").glob("*.classes.*"))


def test_a_config_of_the_users_own_beside_an_earlier_import_is_not_written_over(igpt, tmp_path):
    save(theirs("deep"), tmp_path / "theirs")
    command = ["import", "--path", tmp_path / "theirs", "--out", tmp_path / "x.ckpt"]
    for _ in range(2):
        assert igpt(*command)[0] == 0
    (tmp_path / "x.yaml").write_text("trainer: {max_steps: 7}\n")
    code, _, err = igpt(*command)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "x.yaml is not of this command" in err
    assert (tmp_path / "x.yaml").read_text() == "trainer: {max_steps: 7}\n"


@pytest.fixture(scope="module")
def own(digits_run, tmp_path_factory):
    """The digits' run exported under our own names."""
    out = tmp_path_factory.mktemp("own") / "digits"
    assert main(["export", "--ckpt", str(digits_run.checkpoint), "--format", "safetensors", "--out", str(out)]) == 0
    return digits_run, out


def test_an_export_of_our_own_becomes_the_checkpoint_that_it_was(own, igpt, tmp_path):
    run, out = own
    code, text, err = igpt("import", "--path", out, "--out", tmp_path / "back.ckpt")
    assert code == 0, err
    assert "Autoregressive, step" in text
    before, after = api.load(run.checkpoint), api.load(tmp_path / "back.ckpt")
    assert (after.step, after.class_names) == (before.step, before.class_names)
    states = before.module.state_dict(), after.module.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())
    assert after.data().spec() == before.data().spec()
    code, _, err = igpt("sample", "--ckpt", tmp_path / "back.ckpt", "--num", "2", "--out", tmp_path / "s.png")
    assert code == 0, err
    assert igpt("import", "--path", out, "--out", tmp_path / "back.ckpt")[0] == 0, "it may be written again"


def test_an_export_of_our_own_does_not_take_the_place_of_a_run_with_its_optimizer(own, igpt, tmp_path):
    run, out = own
    target = shutil.copy(run.checkpoint, tmp_path / "last.ckpt")
    before = target.read_bytes()
    code, _, err = igpt("import", "--path", out, "--out", target)
    assert code == 2
    assert "last.ckpt is not of this command" in err
    assert target.read_bytes() == before


def not_json(folder):
    (folder / "igpt.json").write_text("{")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def changed(**new):
    def change(folder):
        file = folder / "igpt.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | new))

    return change


def other_shape(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.wpe"] = tensors["transformer.wpe"][:-1].clone()
    save_file(tensors, folder / "model.safetensors")


def no_number(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.wpe"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (not_json, "igpt.json is not readable JSON"),
        (no_weights, "holds no weights"),
        (cut_short, "cut short or damaged"),
        (
            changed(model={"class_path": "os.system", "init_args": {"command": "touch hit"}}),
            "does not say which network",
        ),
        (changed(model={"class_path": "igpt.modules.Autoregressive"}), "does not say which model"),
        (changed(step="many"), "has 'many' as step"),
        (other_shape, "do not fit the model"),
        (no_number, "transformer.wpe"),
    ],
)
def test_a_damaged_export_of_our_own_is_one_line_and_leaves_nothing(own, igpt, tmp_path, change, said):
    folder = tmp_path / "bad"
    shutil.copytree(own[1], folder)
    change(folder)
    code, _, err = igpt("import", "--path", folder, "--out", tmp_path / "x.ckpt")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert said in err, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


@pytest.mark.parametrize("option", [["--palette", PALETTE], ["--data", "Digits"]])
def test_what_is_for_weights_of_others_is_refused_of_our_own(own, igpt, tmp_path, option):
    code, _, err = igpt("import", "--path", own[1], "--out", tmp_path / "x.ckpt", *option)
    assert code == 2
    assert f"{option[0]} is for weights of others" in err
