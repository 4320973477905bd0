"""`igpt sample` with a mask, and with BERT. Drawing and completing with AR as such: test_probe.py."""

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import igpt as api


@pytest.fixture
def mask(tmp_path):
    """A wide picture of which the central square matters: white, in that square, are rows 2, 3 and columns 4 to 7."""
    canvas = np.zeros((80, 120), np.uint8)
    canvas[20:40, 60:100] = 255
    canvas[:, :20] = 255  # outside the central square
    canvas[50:60, 30:90] = 120  # darker than medium grey
    Image.fromarray(canvas).save(tmp_path / "mask.png")
    region = np.zeros((8, 8), bool)
    region[2:4, 4:8] = True
    return tmp_path / "mask.png", region.flatten()


@pytest.mark.parametrize("name", ["digits_run", "digits_bert_run"])
def test_what_the_mask_paints_white_is_drawn_anew_by_ar_and_bert_alike(request, igpt, tmp_path, mask, name):
    run, (file, region) = request.getfixturevalue(name), mask
    code, out, err = igpt("sample", "--ckpt", run.checkpoint, "--indices", 0, 1, 2, "--num", 5, "--mask", file, "--out",
                          tmp_path / "m.png")  # fmt: skip
    assert code == 0, err
    assert "drew 120 pixels of 15 images" in out
    tokens = np.load(tmp_path / "m.npy")
    loaded = api.load(run.checkpoint)
    test = loaded.data().images("test")
    images = torch.stack([test[row][0] for row in range(3)])
    original = loaded.module.palette.encode(images).numpy()[:, None]
    assert (tokens == original)[:, :, ~region].all()
    assert not (tokens == original)[:, :, region].all()
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size == ((7 * 9 + 1) * 15, (3 * 9 + 1) * 15 + 26)  # about 1,000 wide, the columns' names above


def test_rows_are_test_images_of_as_many_classes_as_there_are(digits_run, igpt, tmp_path):
    for seed in (0, 1):
        out = tmp_path / f"{seed}.png"
        assert (
            igpt("sample", "--ckpt", digits_run.checkpoint, "--rows", 10, "--num", 1, "--seed", seed, "--out", out)[0]
            == 0
        )
    one, other = (np.load(tmp_path / f"{seed}.npy")[:, 0] for seed in (0, 1))
    assert (one[:, :32] == other[:, :32]).all()  # the same images whatever is drawn
    assert (one != other).any()
    loaded = api.load(digits_run.checkpoint)
    test = loaded.data().images("test")
    upper = loaded.module.palette.encode(test.images[:]).numpy()[:, :32]
    shown = [int((upper == tokens[:32]).all(1).argmax()) for tokens in one]
    assert len({int(test.labels[index]) for index in shown}) >= 9  # two digits may have one upper half


def test_an_index_beyond_the_test_split_is_refused_in_one_line(digits_run, igpt, tmp_path):
    code, _, err = igpt("sample", "--ckpt", digits_run.checkpoint, "--indices", 5000, "--out", tmp_path / "c.png")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--indices 5000: the test split has images 0 to " in err


def test_white_pictures_have_an_edge_and_columns_have_names():
    from igpt.data import enlarge, grid, with_headings

    white = torch.full((4, 3, 8, 8), 255, dtype=torch.uint8)
    picture = enlarge(grid(white, 2))
    assert picture.shape == (3, 19 * 52, 19 * 52)
    assert picture[0, 0].eq(128).all()
    assert picture[0, 5 * 52].eq(255).any()
    named = with_headings(picture, ["given", "original"])
    strip = named[:, : named.shape[1] - picture.shape[1]]
    assert torch.equal(named[:, len(strip[0]) :], picture)
    assert strip[0, :, : 9 * 52].min() < 100  # letters in both columns
    assert strip[0, :, 10 * 52 :].min() < 100


def test_an_all_white_mask_draws_the_whole_image_as_from_nothing(digits_bert_run, igpt, tmp_path):
    Image.new("L", (8, 8), 255).save(tmp_path / "white.png")
    options = ["sample", "--ckpt", digits_bert_run.checkpoint, "--steps", 8, "--seed", 3]
    assert (
        igpt(*options, "--rows", 2, "--num", 2, "--mask", tmp_path / "white.png", "--out", tmp_path / "w.png")[0] == 0
    )
    assert igpt(*options, "--num", 4, "--out", tmp_path / "n.png")[0] == 0
    assert (np.load(tmp_path / "w.npy").reshape(4, 64) == np.load(tmp_path / "n.npy")).all()


def test_bert_draws_in_as_many_passes_as_it_is_told(digits_bert_run, igpt, tmp_path):
    for name, steps in (("a", 2), ("b", 2), ("c", 5)):
        code, _, err = igpt("sample", "--ckpt", digits_bert_run.checkpoint, "--num", 4, "--steps", steps, "--out",
                            tmp_path / f"{name}.png")  # fmt: skip
        assert code == 0, err
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert (a == b).all()
    assert (a != c).any()


def test_bert_fine_tuned_on_classes_still_completes(digits_bert_run, tmp_path, igpt):
    core = api.load(digits_bert_run.checkpoint).module
    module = api.Joint(10, generative=core)
    header = {"format": 1, "model": module.spec(), "data": api.load(digits_bert_run.checkpoint).data_spec}
    torch.save({"state_dict": module.state_dict(), "igpt": header}, tmp_path / "joint.ckpt")
    code, _, err = igpt("sample", "--ckpt", tmp_path / "joint.ckpt", "--rows", 1, "--num", 1, "--steps", 4, "--out",
                        tmp_path / "j.png")  # fmt: skip
    assert code == 0, err


def test_samples_and_completions_of_bert_are_logged_while_it_trains(digits_bert_run):
    events = EventAccumulator(str(digits_bert_run.folder))
    events.Reload()
    assert [event.step for event in events.Images("samples")] == [15, 30]
    assert [event.step for event in events.Images("completions")] == [15, 30]


def test_no_file_that_is_read_and_none_of_another_kind_is_written_over(digits_run, igpt, tmp_path):
    photo, foreign = tmp_path / "photo.png", tmp_path / "faces.npy"
    Image.new("RGB", (8, 8), 9).save(photo)
    np.save(foreign, np.zeros((2, 8, 8, 3), np.uint8))
    (tmp_path / "link.png").symlink_to(photo)
    before = {path: path.read_bytes() for path in (photo, foreign)}
    start = ["sample", "--ckpt", digits_run.checkpoint, "--num", 1]
    for options, out in (
        (["--complete", photo], photo),
        (["--complete", photo], tmp_path / "link.png"),
        (["--rows", 1, "--mask", photo], photo),
        ([], photo),
        ([], tmp_path / "faces.png"),
    ):
        code, _, err = igpt(*start, *options, "--out", out)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert "--out" in err
    assert {path: path.read_bytes() for path in (photo, foreign)} == before


def test_an_earlier_drawing_is_replaced(digits_run, igpt, tmp_path):
    for seed in (1, 2):
        options = ["--num", 1, "--seed", seed, "--out", tmp_path / "s.png"]
        assert igpt("sample", "--ckpt", digits_run.checkpoint, *options)[0] == 0
