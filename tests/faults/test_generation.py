"""Bad input to `igpt sample` with a mask or passes, `igpt surprise`, and a run's scores: one line, nothing left."""

import pytest
from PIL import Image


@pytest.fixture
def here(tmp_path, refused):
    """A black mask, one whose white is too small to be seen at 8x8, a good one, and a file that is no picture."""
    Image.new("L", (16, 16), 0).save(tmp_path / "black.png")
    speck = Image.new("L", (64, 64), 0)
    speck.putpixel((0, 0), 255)
    speck.save(tmp_path / "speck.png")
    Image.new("L", (16, 16), 255).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("not a picture at all")
    return refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mask", "black.png", "--rows", "1"], ["--mask black.png", "no white pixel", "8x8"]),
        (["--mask", "speck.png", "--rows", "1"], ["--mask speck.png", "no white pixel"]),
        (["--mask", "gone.png", "--rows", "1"], ["gone.png", "does not exist"]),
        (["--mask", "text.png", "--rows", "1"], ["text.png", "not a picture"]),
        (["--mask", "good.png"], ["--mask", "--complete", "--rows"]),
        (["--mask", "good.png", "--rows", "1", "--keep", "0.5"], ["--keep", "--mask", "exclude"]),
        (["--keep", "0", "--rows", "1"], ["--keep"]),
        (["--steps", "8"], ["--steps 8", "autoregressive"]),
    ],
)
def test_a_completion_with_one_option_off(here, digits_run, options, words):
    here("sample", "--ckpt", digits_run.checkpoint, "--out", "s.png", *options, words=words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "0"], ["--steps 0", "at least 1"]),
        (["--steps", "many"], ["--steps", "many"]),
        (["--temperature", "0"], ["--temperature"]),
        (["--mask", "black.png", "--rows", "1"], ["--mask black.png"]),
    ],
)
def test_drawing_with_bert_with_one_option_off(here, digits_bert_run, options, words):
    here("sample", "--ckpt", digits_bert_run.checkpoint, "--out", "s.png", *options, words=words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--files"]),
        (["--files", "[]"], ["--files", "one picture"]),
        (["gone.png"], ["gone.png", "does not exist"]),
        (["good.png", "text.png"], ["text.png", "not a picture"]),
        (["good.png", "--seed", "x"], ["--seed"]),
        (["good.png", "--accelerator", "abacus"], ["--accelerator abacus"]),
        (["good.png", "--out", "s.npy"], ["--out s.npy", ".png"]),
    ],
)
def test_surprise_with_one_word_off(here, digits_run, arguments, words):
    here("surprise", "--ckpt", digits_run.checkpoint, "--out", "s.png", *arguments, words=words)


def test_surprise_without_a_checkpoint_or_a_place_to_write(here, digits_run):
    here("surprise", "good.png", "--out", "s.png", words=["--ckpt"])
    here("surprise", "good.png", "--ckpt", digits_run.checkpoint, words=["--out"])
    here("surprise", "good.png", "--ckpt", "gone.ckpt", "--out", "s.png", words=["gone.ckpt"])


@pytest.mark.parametrize(("content", "words"), [("{", "not readable JSON"), ("{}", "does not hold a list")])
def test_scores_that_are_none_are_named_before_the_test_runs(here, digits_run, tmp_path, content, words):
    folder = tmp_path / "runs" / "mini"
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(content)
    options = ["--config", digits_run.config, "--ckpt_path", digits_run.checkpoint]
    here("test", *options, words=["scores.json", words, "move it away"])
    assert (folder / "scores.json").read_text() == content
