"""Bad input: one line that names the option or file, exit 2, and nothing left behind."""

import shutil

import pytest
import torch


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["palette", "--data", "Digits", "--colours", "8", "--out", "p.npy"], ["--colours"]),
        (["palette", "--data", "Digits", "--color", "8", "--out", "p.npy"], ["--color"]),
        (["palette", "--data", "Digit", "--out", "p.npy"], ["--data", "Digit", "did you mean Digits?"]),
        (["palette", "--data", "Digits", "--data.root", "x", "--out", "p.npy"], ["root"]),
        (["palette", "--data", "Digits", "--colors", "many", "--out", "p.npy"], ["--colors", "many"]),
        (["palette", "--data", "Digits", "--colors", "18", "--out", "p.npy"], ["--colors 18", "17"]),
        (["palette", "--data", "Digits", "--colors", "0", "--out", "p.npy"], ["--colors 0"]),
        (["palette", "--data", "Digits", "--out", "p.png"], ["--out", ".npy"]),
        (["palette", "--data", "CIFAR10", "--data.download", "false", "--out", "p.npy"], ["cifar-10-python.tar.gz"]),
        (["palette", "--out", "p.npy"], ["--data"]),
        (["probe", "--ckpt", "gone.ckpt"], ["gone.ckpt", "does not exist"]),
        (["probe"], ["--ckpt"]),
        (["sample", "--ckpt", "gone.ckpt", "--out", "s.png"], ["gone.ckpt"]),
        (["fit", "--config", "gone.yaml"], ["gone.yaml"]),
        (["fit"], ["--model", "--data"]),
    ],
    ids=lambda value: (
        " ".join(value) if isinstance(value, list) and value[0] in ("palette", "probe", "sample", "fit") else ""
    ),
)
def test_words_that_are_off_without_any_file(refused, arguments, words):
    refused(*arguments, words=words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.max_step", "8"], ["--trainer.max_step"]),
        (["--trainer.max_steps", "ten"], ["trainer.max_steps", "ten"]),
        (["--trainer.max_steps", "-1"], ["max_steps"]),
        (["--model", "Autoregresive"], ["--model", "Autoregressive"]),
        (["--data", "CIFAR11"], ["--data", "CIFAR10"]),
        (["--data.init_args.batch_size", "0"], ["batch_size"]),
        (["--data.init_args.batch_size", "5000"], ["batch_size 5000", "1294"]),
        (["--data.init_args.resolution", "4"], ["resolution", "n_positions"]),
        (["--model.init_args.transformer.n_heads", "5"], ["n_heads 5", "d_model 32"]),
        (["--model.init_args.transformer.sos", "false"], ["sos"]),
        (["--model.init_args.transformer.vocab_size", "16"], ["17 colours", "vocab_size is 16"]),
        (["--model.init_args.transformer.colour", "16"], ["colour"]),
        (["--model.init_args.palette", "gone.npy"], ["gone.npy", "igpt palette"]),
        (["--ckpt_path", "gone.ckpt"], ["gone.ckpt", "does not exist"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_fit_with_one_option_off(refused, digits_run, options, words):
    refused("fit", "--config", digits_run.config, *options, words=words)


def test_a_checkpoint_to_go_on_with_that_is_cut_short(refused, digits_run, tmp_path):
    (tmp_path / "bad.ckpt").write_bytes(digits_run.checkpoint.read_bytes()[:20_000])
    refused("fit", "--config", digits_run.config, "--ckpt_path", "bad.ckpt", words=["bad.ckpt", "cut short"])


def test_a_checkpoint_cannot_name_a_class_from_outside(refused, digits_run, tmp_path):
    content = torch.load(digits_run.checkpoint, weights_only=True)
    content["igpt"]["model"]["class_path"] = "subprocess.Popen"
    torch.save(content, tmp_path / "evil.ckpt")
    refused("probe", "--ckpt", "evil.ckpt", words=["subprocess.Popen"])
    content["igpt"]["model"]["class_path"] = "igpt.palette.Palette"
    torch.save(content, tmp_path / "evil.ckpt")
    refused("probe", "--ckpt", "evil.ckpt", words=["igpt.palette.Palette"])


def test_a_checkpoint_of_another_network_is_refused_with_the_difference(refused, digits_run, tmp_path):
    shutil.copy(digits_run.checkpoint, tmp_path / "other.ckpt")
    options = ["--model.init_args.transformer.n_layers", 2, "--ckpt_path", "other.ckpt"]
    refused("fit", "--config", digits_run.config, *options, words=["n_layers 3 (now 2)"])


def test_a_checkpoint_of_another_pixel_order_is_refused(refused, digits_run):
    options = ["--model.init_args.order", "spiral", "--ckpt_path", digits_run.checkpoint]
    refused("test", "--config", digits_run.config, *options, words=["order raster (now spiral)"])


def test_the_last_checkpoint_of_a_run_that_is_not_there_is_named(refused, digits_run):
    refused(
        "test",
        "--config",
        digits_run.config,
        "--name",
        "never",
        "--ckpt_path",
        "last",
        words=["never", "no checkpoint"],
    )


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_evaluating_without_a_checkpoint_says_so(refused, digits_run, verb):
    refused(verb, "--config", digits_run.config, words=["--ckpt_path"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layers", "99"], ["--layers 99", "0 to 3"]),
        (["--layers", "-1"], ["--layers"]),
        (["--layers", "first"], ["--layers", "first"]),
        (["--layers", ""], ["--layers"]),
        (["--method", "guess"], ["--method"]),
    ],
)
def test_probe_with_one_option_off(refused, digits_run, options, words):
    refused("probe", "--ckpt", digits_run.checkpoint, "--out", "p", *options, words=words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--temperature", "0"], ["--temperature"]),
        (["--top_k", "-2"], ["--top_k"]),
        (["--top_p", "1.5"], ["--top_p"]),
        (["--num", "0"], ["--num"]),
        (["--keep", "1"], ["--keep"]),
        (["--complete", "[gone.png]"], ["gone.png", "does not exist"]),
        (["--complete", "[text.png]"], ["text.png", "not a picture"]),
        (["--complete", "[cut.png]"], ["cut.png", "not a picture"]),
        (["--rows", "2", "--complete", "[text.png]"], ["--rows", "--complete"]),
        (["--accelerator", "abacus"], ["--accelerator abacus"]),
    ],
)
def test_sample_with_one_option_off(refused, digits_run, tmp_path, options, words):
    from PIL import Image

    (tmp_path / "text.png").write_text("not a picture at all")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    refused("sample", "--ckpt", digits_run.checkpoint, "--out", "s.png", *options, words=words)


def test_a_picture_format_that_does_not_exist_is_refused_before_any_work(refused, digits_run):
    refused("sample", "--ckpt", digits_run.checkpoint, "--out", "s.xyz", words=["--out s.xyz", ".png"])


def test_an_output_folder_that_cannot_be_made_is_named(refused, digits_run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused("palette", "--data", "Digits", "--colors", 4, "--out", "file/p.npy", words=["file/p.npy"])


def test_missing_data_and_palette_are_both_reported_a_line_each(igpt, tmp_path, monkeypatch):
    from tests.conftest import REPO

    monkeypatch.chdir(tmp_path)
    code, _, err = igpt("fit", "--config", REPO / "configs" / "cifar10_ar.yaml", "--data.init_args.download", "false")
    lines = [line for line in err.splitlines() if line.startswith("igpt fit:")]
    assert code == 2
    assert len(lines) == 2
    assert "palettes/cifar10.npy" in lines[0]
    assert "make palette" in lines[0]
    assert "cifar-10-python.tar.gz" in lines[1]
    assert list(tmp_path.iterdir()) == []
