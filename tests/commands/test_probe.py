import csv
import json

import numpy as np
from PIL import Image


def test_the_probe_writes_and_prints_every_layer_beside_raw_pixels(digits_run, igpt, tmp_path):
    code, out, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--out", tmp_path)
    assert code == 0, err
    report = json.loads((tmp_path / "probe.json").read_text())
    assert [row["layer"] for row in report["layers"]] == [0, 1, 2, 3]
    best = max(report["layers"], key=lambda row: (row["val_accuracy"], -row["layer"]))
    assert report["best_layer"] == best["layer"]
    assert report["best_test_accuracy"] == best["test_accuracy"]
    assert report["method"] == "lbfgs"
    assert report["step"] == 30
    assert report["images"] == {"train": 1294, "val": 144, "test": 359}
    assert 0.93 < report["raw_pixels"]["test_accuracy"] < 0.98
    for row in report["layers"]:
        assert f"{row['test_accuracy']:.4f}" in out
        assert row["test_accuracy"] > 0.3  # ten classes: far above chance
    rows = list(csv.DictReader((tmp_path / "probe.csv").read_text().splitlines()))
    assert [float(row["test_accuracy"]) for row in rows] == [row["test_accuracy"] for row in report["layers"]]
    with Image.open(tmp_path / "layers.png") as picture:
        assert picture.size[0] > 400


def test_some_layers_give_the_same_accuracy_as_all(digits_run, igpt, tmp_path):
    assert igpt("probe", "--ckpt", digits_run.checkpoint, "--out", tmp_path / "all")[0] == 0
    assert igpt("probe", "--ckpt", digits_run.checkpoint, "--out", tmp_path / "some", "--layers", "3,1")[0] == 0
    everything = json.loads((tmp_path / "all" / "probe.json").read_text())["layers"]
    some = json.loads((tmp_path / "some" / "probe.json").read_text())["layers"]
    assert [row["layer"] for row in some] == [1, 3]
    for row in some:
        assert abs(row["test_accuracy"] - everything[row["layer"]]["test_accuracy"]) < 0.006  # two of 359 images


def test_without_out_the_results_stand_beside_the_checkpoints(digits_run, igpt):
    assert igpt("probe", "--ckpt", digits_run.checkpoint, "--layers", "2")[0] == 0
    assert (digits_run.folder / "probe" / "probe.json").exists()


def test_other_data_can_be_probed_and_a_wrong_resolution_is_one_line(digits_run, igpt, tmp_path):
    code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--data", "Digits", "--data.seed", 3, "--layers", "1",
                        "--out", tmp_path)  # fmt: skip
    assert code == 0, err
    assert json.loads((tmp_path / "probe.json").read_text())["data"]["init_args"]["seed"] == 3
    code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--data", "SamplePhotos", "--out", tmp_path / "no")
    assert code == 2
    assert "32x32" in err
    assert "8x8" in err
    assert not (tmp_path / "no").exists()


def test_sampling_draws_the_grid_and_its_tokens(digits_run, igpt, tmp_path):
    code, out, err = igpt("sample", "--ckpt", digits_run.checkpoint, "--num", 9, "--out", tmp_path / "s.png")
    assert code == 0, err
    assert "tokens/s" in out
    tokens = np.load(tmp_path / "s.npy")
    assert tokens.shape == (9, 64)
    with Image.open(tmp_path / "s.png") as file:
        picture = np.asarray(file)
    factor = 8  # 8x8 images are shown 64 pixels wide
    levels = np.rint(np.arange(17) * 255 / 16)
    for index in range(9):
        y, x = 1 + index // 3 * 9, 1 + index % 3 * 9
        shown = picture[y * factor : (y + 8) * factor : factor, x * factor : (x + 8) * factor : factor, 0]
        assert np.isin(shown, levels).all()
        np.testing.assert_array_equal(np.unique(shown).size, np.unique(tokens[index]).size)


def test_the_same_seed_gives_the_same_picture(digits_run, igpt, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert (
            igpt(
                "sample", "--ckpt", digits_run.checkpoint, "--num", 4, "--seed", seed, "--out", tmp_path / f"{name}.png"
            )[0]
            == 0
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_completions_keep_the_upper_half_of_test_images(digits_run, igpt, tmp_path):
    from igpt import load

    code, _, err = igpt("sample", "--ckpt", digits_run.checkpoint, "--rows", 3, "--num", 2, "--out", tmp_path / "c.png")
    assert code == 0, err
    tokens = np.load(tmp_path / "c.npy")
    assert tokens.shape == (3, 2, 64)
    loaded = load(digits_run.checkpoint)
    test = loaded.data().images("test")
    for row in range(3):
        expected = loaded.module.encode(test[row][0][None]).numpy()[0, :32]
        assert (tokens[row, :, :32] == expected).all()


def test_any_picture_file_can_be_completed(digits_run, igpt, tmp_path):
    for name, mode in (("wide.png", "RGB"), ("alpha.png", "RGBA"), ("grey.jpg", "L")):
        Image.new(mode, (50, 20), 128 if mode == "L" else (200, 10, 90, 128)[: len(mode)]).save(tmp_path / name)
    files = [tmp_path / name for name in ("wide.png", "alpha.png", "grey.jpg")]
    listed = "[" + ",".join(map(str, files)) + "]"
    code, _, err = igpt("sample", "--ckpt", digits_run.checkpoint, "--complete", listed, "--out", tmp_path / "c.png")
    assert code == 0, err
    assert np.load(tmp_path / "c.npy").shape == (3, 4, 64)
