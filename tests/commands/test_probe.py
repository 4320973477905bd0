"""`igpt probe` on the digits: what it finds, against scikit-learn, and what it writes."""

import csv
import json
import re
import shlex
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import igpt as api
from igpt.cli import main
from igpt.probing.protocol import window
from igpt.system.files import sha256_of
from igpt_datamodules import Digits

CHOSEN = {"lbfgs": "strength", "sgd": "rate", "knn": "k"}


def read(out):
    return json.loads((out / "probe.json").read_text())


@pytest.fixture(scope="module")
def probed(digits_run, tmp_path_factory):
    """The folder and the words of a probe by every method, of neighbours together and with few labels."""
    out = tmp_path_factory.mktemp("probed")
    words = ["probe", "--ckpt", digits_run.checkpoint, "--method", "all", "--epochs", 1, "--concat", 3,
             "--labels-per-class", 4, 25, "--subsets", 3, "--out", out]  # fmt: skip
    words = [str(word) for word in words]
    assert main(words) == 0
    return out, words


@cache
def digits():
    return Digits()


def stored(out, layers):
    """For each split, features (N, D) of layers one after another and labels, read with NumPy alone."""
    return {
        name: (
            np.concatenate(list(np.load(out / "features" / f"{name}_features.npy")[layers].astype(np.float64)), axis=1),
            np.load(out / "features" / f"{name}_labels.npy"),
        )
        for name in ("train", "val", "test")
    }


def pixels():
    """For each split, pixels (N, 3 R R) and labels."""
    found = {}
    for name in ("train", "val", "test"):
        images = digits().images(name)
        found[name] = torch.stack([image for image, _ in images]).flatten(1).double().numpy(), np.asarray(images.labels)
    return found


def standardised(splits, by="train"):
    mean, deviation = splits[by][0].mean(0), splits[by][0].std(0)
    scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)
    return {name: ((features - mean) * scale, labels) for name, (features, labels) in splits.items()}


def both(splits):
    return [np.concatenate([splits["train"][part], splits["val"][part]]) for part in (0, 1)]


def sklearn_accuracy(x, labels, test, strength):
    """Test accuracy of scikit-learn's logistic regression with the same penalty, at its very optimum."""
    model = LogisticRegression(C=1 / (strength * len(labels)), solver="newton-cholesky", tol=1e-8)
    return model.fit(x, labels).score(*test)


def knn_accuracy(x, labels, test, k):
    """Test accuracy of scikit-learn's majority vote by cosine; the nearer neighbours decide ties."""
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda far: 1 + (1 - far) / 1000)
    return model.fit(x, labels).score(*test)


def test_the_probe_writes_and_prints_every_layer_beside_raw_pixels(digits_run, igpt, tmp_path):
    code, out, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--out", tmp_path)
    assert code == 0, err
    report = read(tmp_path)
    assert [row["layer"] for row in report["layers"]] == [0, 1, 2, 3]
    best = max(report["layers"], key=lambda row: (row["val_accuracy"], -row["layer"]))
    assert report["best_layer"] == best["layer"]
    assert report["best_test_accuracy"] == best["test_accuracy"]
    assert report["method"] == "lbfgs"
    assert list(report["methods"]) == ["lbfgs"]
    assert report["low_data"] == []
    assert report["concat"] is None
    assert report["step"] == 30
    assert report["images"] == {"train": 1294, "val": 144, "test": 359}
    assert 0.93 < report["raw_pixels"]["test_accuracy"] < 0.98
    for row in report["layers"]:
        assert f"{100 * row['val_accuracy']:5.1f} %  {100 * row['test_accuracy']:5.1f} %" in out
        assert row["test_accuracy"] > 0.3  # ten classes: far above chance
    accuracy, pixels = (100 * row["test_accuracy"] for row in (best, report["raw_pixels"]))
    assert f"best layer {best['layer']}, test accuracy {accuracy:.1f} % (raw pixels {pixels:.1f} %)" in out
    rows = list(csv.DictReader((tmp_path / "probe.csv").read_text().splitlines()))
    assert [row["layer"] for row in rows] == ["0", "1", "2", "3", "pixels"]
    found = [row["test_accuracy"] for row in [*report["layers"], report["raw_pixels"]]]
    assert [float(row["test_accuracy"]) for row in rows] == found
    with Image.open(tmp_path / "layers.png") as picture:
        assert picture.size[0] > 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features", "layers.png", "probe.csv", "probe.json"]


def test_every_method_has_its_results_in_json_csv_and_the_first_one_also_on_top(probed):
    report = read(probed[0])
    assert list(report["methods"]) == list(CHOSEN)
    top = {key: report[key] for key in ("best_layer", "best_test_accuracy", "layers", "raw_pixels", "concat")}
    lbfgs = report["methods"]["lbfgs"]
    assert {**top, "protocol": lbfgs["protocol"], "settings": {}} == lbfgs
    lines = list(csv.DictReader((probed[0] / "probe.csv").read_text().splitlines()))
    for name, found in report["methods"].items():
        assert [row["layer"] for row in found["layers"]] == [0, 1, 2, 3]
        assert all(row[CHOSEN[name]] > 0 for row in found["layers"])
        assert all(0 < row[f"{split}_accuracy"] <= 1 for row in found["layers"] for split in ("val", "test"))
        best = max(found["layers"], key=lambda row: (row["val_accuracy"], -row["layer"]))
        assert (found["best_layer"], found["best_test_accuracy"]) == (best["layer"], best["test_accuracy"])
        assert found["concat"]["layers"] == window(best["layer"], 3, 3)
        assert (found["raw_pixels"] is None) == (name == "sgd")
        mine = [line for line in lines if line["method"] == name]
        rows = [*found["layers"], found["concat"], *([found["raw_pixels"]] if found["raw_pixels"] else [])]
        for line, row in zip(mine, rows, strict=True):
            assert {key: float(line[key]) for key in (CHOSEN[name], "val_accuracy", "test_accuracy")} == {
                key: row[key] for key in (CHOSEN[name], "val_accuracy", "test_accuracy")
            }
        assert mine[4]["layer"] == "-".join(map(str, found["concat"]["layers"]))


def test_every_layer_has_the_accuracy_of_scikit_learns_regression_within_half_a_point(probed):
    for row in read(probed[0])["methods"]["lbfgs"]["layers"]:
        splits = standardised(stored(probed[0], [row["layer"]]))
        expected = sklearn_accuracy(*both(splits), splits["test"], row["strength"])
        assert row["test_accuracy"] == pytest.approx(expected, abs=0.005), row


def test_the_penalty_is_the_best_on_validation_and_the_stronger_of_equals(probed):
    row = read(probed[0])["methods"]["lbfgs"]["layers"][1]
    splits = standardised(stored(probed[0], [1]))
    tried = {s: sklearn_accuracy(*splits["train"], splits["val"], s) for s in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)}
    assert row["strength"] in tried
    assert row["val_accuracy"] == pytest.approx(tried[row["strength"]], abs=0.008)  # one of 144 images
    assert row["val_accuracy"] == pytest.approx(max(tried.values()), abs=0.008)


def test_neighbours_together_are_their_features_one_after_another(probed):
    found = read(probed[0])["methods"]["lbfgs"]["concat"]
    splits = standardised(stored(probed[0], found["layers"]))
    assert splits["test"][0].shape == (359, 3 * 32)
    expected = sklearn_accuracy(*both(splits), splits["test"], found["strength"])
    assert found["test_accuracy"] == pytest.approx(expected, abs=0.005)


def test_raw_pixels_are_probed_in_the_same_way(probed):
    methods, splits = read(probed[0])["methods"], standardised(pixels())
    found = methods["lbfgs"]["raw_pixels"]
    expected = sklearn_accuracy(*both(splits), splits["test"], found["strength"])
    assert found["test_accuracy"] == pytest.approx(expected, abs=0.005)
    near = methods["knn"]["raw_pixels"]
    expected = knn_accuracy(*both(splits), splits["test"], near["k"])
    assert near["test_accuracy"] == pytest.approx(expected, abs=0.005)


def test_neighbours_of_features_are_found_as_by_scikit_learn(probed):
    for row in read(probed[0])["methods"]["knn"]["layers"]:
        splits = standardised(stored(probed[0], [row["layer"]]))
        expected = knn_accuracy(*both(splits), splits["test"], row["k"])
        assert row["test_accuracy"] == pytest.approx(expected, abs=0.005), row


def test_the_window_of_neighbours_lies_around_the_best_layer_and_inside_the_network():
    assert [window(best, 3, 5) for best in range(6)] == [[0, 1, 2]] * 2 + [[1, 2, 3], [2, 3, 4]] + [[3, 4, 5]] * 2
    assert window(0, 2, 5) == [0, 1]
    assert window(5, 2, 5) == [4, 5]
    for width in range(2, 7):
        for best in range(6):
            found = window(best, width, 5)
            assert found == list(range(found[0], found[0] + width))
            assert 0 <= found[0] <= best <= found[-1] <= 5


def test_with_few_labels_mean_and_deviation_are_those_of_the_subsets(probed):
    found = read(probed[0])["low_data"]
    assert [row["labels_per_class"] for row in found] == [4, 25]
    for row in found:
        tested = [run["test_accuracy"] for run in row["runs"]]
        assert [run["subset_seed"] for run in row["runs"]] == [0, 1, 2]
        assert row["subsets"] == len(tested) == 3
        assert len(set(tested)) > 1  # of other images; two of them may be right equally often
        assert row["mean_test_accuracy"] == pytest.approx(np.mean(tested))
        assert row["std_test_accuracy"] == pytest.approx(np.std(tested, ddof=1))
    assert found[1]["mean_test_accuracy"] > found[0]["mean_test_accuracy"]


def test_subsets_have_so_many_images_of_each_class_of_training_alone_and_differ_by_seed(probed):
    saved = json.loads((probed[0] / "low_data.json").read_text())["subsets"]
    labels = np.asarray(digits().load()["train"].labels)
    validation = set(digits().images("val").indices.tolist())
    assert list(saved) == ["4", "25"]
    for count, subsets in saved.items():
        assert len({tuple(one) for one in subsets}) == 3
        for one in subsets:
            assert np.bincount(labels[one]).tolist() == [int(count)] * 10
            assert len(set(one)) == len(one)
            assert not validation & set(one)


def test_the_same_seeds_choose_the_same_images_again_and_more_subsets_only_add_some(probed, digits_run, igpt, tmp_path):
    code, out, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--layers", 1, "--method", "knn",
                          "--labels_per_class", "[4]", "--subsets", 4, "--out", tmp_path)  # fmt: skip
    assert code == 0, err
    before, after = (json.loads((out / "low_data.json").read_text())["subsets"] for out in (probed[0], tmp_path))
    assert list(after) == ["4"]
    assert igpt("probe", "--ckpt", digits_run.checkpoint, "--layers", 1, "--method", "knn", "--out", tmp_path)[0] == 0
    assert json.loads((tmp_path / "low_data.json").read_text())["subsets"] == after  # still true of this checkpoint
    assert after["4"][:3] == before["4"]
    assert len(after["4"]) == 4
    assert "4 labels a class" in out


def test_a_probe_with_few_labels_is_scikit_learns_on_these_images(probed):
    row = read(probed[0])["low_data"][1]
    saved = json.loads((probed[0] / "low_data.json").read_text())["subsets"]["25"]
    data = digits()
    images = {name: data.images(name) for name in ("train", "val", "test")}
    place = {index: position for position, index in enumerate(data.train_indices)}
    flat = {name: [np.stack([image.numpy().ravel() / 255 for image, _ in of]), np.asarray(of.labels)]
            for name, of in images.items()}  # fmt: skip
    for run, pixels, subset in zip(row["runs"], row["raw_pixels"], saved, strict=True):
        splits = stored(probed[0], [run["layer"]])
        some = [place[index] for index in subset]
        few = standardised({**splits, "few": [part[some] for part in splits["train"]]}, by="few")
        for split in ("val", "test"):
            expected = sklearn_accuracy(*few["few"], few[split], run["strength"])
            assert run[f"{split}_accuracy"] == pytest.approx(expected, abs=0.008 if split == "val" else 0.005)
        few = standardised({**flat, "few": [part[some] for part in flat["train"]]}, by="few")
        expected = sklearn_accuracy(*few["few"], few["test"], pixels["strength"])
        assert pixels["test_accuracy"] == pytest.approx(expected, abs=0.005)


def test_what_was_run_and_on_what_stands_in_the_results(probed, digits_run):
    report = read(probed[0])
    assert shlex.split(report["command"]) == ["igpt", *probed[1]]
    assert report["checkpoint"] == str(digits_run.checkpoint)
    assert report["checkpoint_sha256"] == sha256_of(digits_run.checkpoint)
    assert (report["model"], report["objective"]) == ("Autoregressive", "Autoregressive")
    assert report["data"]["class_path"].endswith("Digits")
    assert report["features"] == {"norm": "normed", "grid": 1, "masks": 0, "standardise": True, "dtype": "float16",
                                  "precision": "32-true"}  # fmt: skip


def test_options_other_than_the_papers_are_followed_and_recorded(digits_run, igpt, tmp_path):
    options = {"norm": "raw", "grid": 2, "standardise": False, "dtype": "float32", "precision": "bf16-mixed"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--layers", "2", *words, "--out", tmp_path)
    assert code == 0, err
    report = read(tmp_path)
    assert report["features"] == {**options, "masks": 0}
    splits = stored(tmp_path, [0])
    assert splits["test"][0].shape == (359, 4 * 32)
    module = api.load(digits_run.checkpoint).module
    images = torch.stack([image for image, _ in digits().images("test")])
    with torch.no_grad():
        quarters = module.transformer.features(
            module.encode(images), [2], causal=True, normed=False, pool=torch.eye(64)
        )
    picture = quarters[0].unflatten(1, (2, 4, 2, 4, 32)).mean((2, 4)).flatten(1).numpy()
    np.testing.assert_allclose(splits["test"][0], picture, atol=0.05 * np.abs(picture).max())  # bfloat16
    found = report["layers"][0]
    expected = sklearn_accuracy(*both(splits), splits["test"], found["strength"])
    assert found["test_accuracy"] == pytest.approx(expected, abs=0.02)  # uneven scales: slow to converge


def test_without_out_the_results_stand_in_the_run_and_those_of_earlier_checkpoints_below(digits_run, igpt, tmp_path):
    earlier = digits_run.folder / "checkpoints" / "step=0000020.ckpt"
    shutil.copy(earlier, tmp_path / "mine.ckpt")
    places = {
        digits_run.checkpoint: (digits_run.folder / "probe", 30),
        earlier: (digits_run.folder / "probe" / "step=0000020", 20),
        tmp_path / "mine.ckpt": (tmp_path / "mine_probe", 20),
    }
    for checkpoint, (folder, step) in places.items():
        code, _, err = igpt("probe", "--ckpt", checkpoint, "--layers", 1, "--method", "knn")
        assert code == 0, err
        assert read(folder)["step"] == step
        assert (folder / "features" / "manifest.json").exists()


def test_bert_is_probed_on_whole_images_or_under_masks(digits_bert_run, igpt, tmp_path):
    found = []
    for masks in (0, 2):
        out = tmp_path / str(masks)
        words = ["--layers", "1,2", "--method", "knn", "--masks", masks, "--out", out]
        code, _, err = igpt("probe", "--ckpt", digits_bert_run.checkpoint, *words)
        assert code == 0, err
        assert read(out)["features"]["masks"] == masks
        assert read(out)["best_test_accuracy"] > 0.2
        found.append(stored(out, [0])["val"][0])
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_images_that_the_model_was_also_trained_on_are_split_off_again_to_choose_on(digits_run, igpt, tmp_path):
    content = torch.load(digits_run.checkpoint, weights_only=True)
    content["igpt"]["data"]["init_args"]["split"]["fold_validation"] = True
    torch.save(content, tmp_path / "folded.ckpt")
    for name, checkpoint in (("plain", digits_run.checkpoint), ("folded", tmp_path / "folded.ckpt")):
        words = ["--layers", 2, "--method", "knn", "--out", tmp_path / name]
        assert igpt("probe", "--ckpt", checkpoint, *words)[0] == 0
    plain, folded = read(tmp_path / "plain"), read(tmp_path / "folded")
    assert folded["images"] == {"train": 1294, "val": 144, "test": 359}
    assert folded["data"]["init_args"]["split"]["fold_validation"] is False
    assert folded["layers"] == plain["layers"]
    for split, (features, _) in stored(tmp_path / "plain", [0]).items():
        np.testing.assert_array_equal(features, stored(tmp_path / "folded", [0])[split][0])


def test_some_layers_give_the_same_accuracy_as_all(probed, digits_run, igpt, tmp_path):
    assert igpt("probe", "--ckpt", digits_run.checkpoint, "--out", tmp_path, "--layers", "3,1")[0] == 0
    everything, some = read(probed[0])["layers"], read(tmp_path)["layers"]
    assert [row["layer"] for row in some] == [1, 3]
    for row in some:
        assert abs(row["test_accuracy"] - everything[row["layer"]]["test_accuracy"]) < 0.006  # two of 359 images


def test_other_data_can_be_probed_and_a_wrong_resolution_is_one_line(digits_run, igpt, tmp_path):
    code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--data", "Digits", "--data.seed", 3, "--layers", "1",
                        "--method", "knn", "--out", tmp_path)  # fmt: skip
    assert code == 0, err
    assert json.loads((tmp_path / "probe.json").read_text())["data"]["init_args"]["seed"] == 3
    code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--data", "SamplePhotos", "--out", tmp_path / "no")
    assert code == 2
    assert "32x32" in err
    assert "8x8" in err
    assert not (tmp_path / "no").exists()


STAGES = {"images: features": 1797, "layers and penalties: lbfgs": 12, "layers: lbfgs, refitted": 2, "layers: knn": 2,
          "steps: sgd": 40, "subsets: 4 labels a class": 3}  # fmt: skip


@pytest.mark.parametrize("terminal", [True, False])
def test_every_stage_counts_what_is_done_on_a_terminal_and_nothing_elsewhere(
    digits_run, igpt, tmp_path, monkeypatch, terminal
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("igpt.system.terminal.EVERY_S", (0.0, 0.0))  # every step is shown
    code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--method", "all", "--epochs", 1, "--layers", "1,2",
                        "--labels-per-class", 4, "--subsets", 3, "--out", tmp_path)  # fmt: skip
    assert code == 0, err
    for stage, total in STAGES.items():
        assert [f"\r{done:,} of {total:,} {stage}" in err for done in (0, total)] == [terminal, terminal], (
            stage,
            re.findall("[^\r]*sgd", err)[-3:],
        )
    assert not re.split("[\r\n]", err)[-1].strip()  # the line is taken away


def test_sampling_draws_the_grid_and_its_tokens(digits_run, igpt, tmp_path):
    code, out, err = igpt("sample", "--ckpt", digits_run.checkpoint, "--num", 9, "--out", tmp_path / "s.png")
    assert code == 0, err
    assert "tokens/s" in out
    tokens = np.load(tmp_path / "s.npy")
    assert tokens.shape == (9, 64)
    with Image.open(tmp_path / "s.png") as file:
        picture = np.asarray(file)
    factor = picture.shape[1] // 28  # three images and four gaps of one pixel
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

    code, _, err = igpt("sample", "--ckpt", digits_run.checkpoint, "--indices", 7, 0, 30, "--num", 2, "--out",
                        tmp_path / "c.png")  # fmt: skip
    assert code == 0, err
    tokens = np.load(tmp_path / "c.npy")
    assert tokens.shape == (3, 2, 64)
    loaded = load(digits_run.checkpoint)
    test = loaded.data().images("test")
    for row, index in enumerate((7, 0, 30)):
        expected = loaded.module.encode(test[index][0][None]).numpy()[0, :32]
        assert (tokens[row, :, :32] == expected).all()


def test_any_picture_file_can_be_completed(digits_run, igpt, tmp_path):
    for name, mode in (("wide.png", "RGB"), ("alpha.png", "RGBA"), ("grey.jpg", "L")):
        Image.new(mode, (50, 20), 128 if mode == "L" else (200, 10, 90, 128)[: len(mode)]).save(tmp_path / name)
    files = [tmp_path / name for name in ("wide.png", "alpha.png", "grey.jpg")]
    listed = "[" + ",".join(map(str, files)) + "]"
    code, _, err = igpt("sample", "--ckpt", digits_run.checkpoint, "--complete", listed, "--out", tmp_path / "c.png")
    assert code == 0, err
    assert np.load(tmp_path / "c.npy").shape == (3, 4, 64)


def test_what_was_probed_before_stays_beside_what_is_probed_now(digits_run, igpt, tmp_path):
    probe = ["probe", "--ckpt", digits_run.checkpoint, "--out", tmp_path]
    assert igpt(*probe, "--method", "knn", "--concat", 2)[0] == 0
    earlier = json.loads((tmp_path / "probe.json").read_text())
    assert igpt(*probe, "--labels-per-class", 4, "--subsets", 2)[0] == 0
    assert igpt(*probe, "--labels-per-class", 8, "--subsets", 2)[0] == 0
    both = json.loads((tmp_path / "probe.json").read_text())
    assert both["method"] == "lbfgs"
    assert both["methods"]["knn"] == earlier["methods"]["knn"]
    assert [row["labels_per_class"] for row in both["low_data"]] == [4, 8]
    assert list(json.loads((tmp_path / "low_data.json").read_text())["subsets"]) == ["4", "8"]
    assert len(both["earlier_commands"]) == 2
    assert "knn" in (tmp_path / "probe.csv").read_text()
    assert igpt(*probe, "--norm", "raw", "--layers", "1")[0] == 0  # other features: nothing of the above holds for them
    other = json.loads((tmp_path / "probe.json").read_text())
    assert list(other["methods"]) == ["lbfgs"]
    assert other["low_data"] == []
    assert other["features"]["dtype"] == "float32"
    assert not (tmp_path / "low_data.json").exists()


def test_an_sgd_probe_of_fewer_images_than_a_batch_is_refused(digits_run, igpt, tmp_path):
    few = ["--data", "Digits", "--data.split.labels_per_class", 3]
    code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, *few, "--method", "sgd", "--out", tmp_path)
    assert code == 2
    assert "batch_size 64 exceeds the train split of 30 images" in err


def test_the_epochs_of_an_sgd_probe_are_recorded_and_stay_with_its_numbers(digits_run, igpt, tmp_path):
    probe = ["probe", "--ckpt", digits_run.checkpoint, "--layers", "1", "--out", tmp_path]
    assert igpt(*probe, "--method", "sgd", "--epochs", 2)[0] == 0
    assert igpt(*probe, "--method", "knn")[0] == 0
    methods = json.loads((tmp_path / "probe.json").read_text())["methods"]
    assert methods["sgd"]["settings"] == {"epochs": 2, "images": "stored features"}
    assert methods["knn"]["settings"] == {}


def test_earlier_results_that_are_no_longer_whole_do_not_cost_the_new_ones(digits_run, igpt, tmp_path):
    probe = ["probe", "--ckpt", digits_run.checkpoint, "--layers", "1", "--out", tmp_path]
    assert igpt(*probe, "--labels-per-class", 4, "--subsets", 2)[0] == 0
    (tmp_path / "low_data.json").unlink()
    code, _, err = igpt(*probe, "--method", "knn")
    assert code == 0, err
    found = json.loads((tmp_path / "probe.json").read_text())
    assert list(found["methods"]) == ["knn"]
    assert found["low_data"] == []


def test_the_attentive_probe_stands_beside_the_others_and_needs_no_stored_features(digits_run, igpt, tmp_path):
    words = ["probe", "--ckpt", digits_run.checkpoint, "--layers", "1,2", "--out", tmp_path]
    code, out, err = igpt(*words, "--method", "attentive", "--epochs", 1)
    assert code == 0, err
    assert "attentive: best layer" in out
    assert not (tmp_path / "features").exists()
    assert not (tmp_path / "attentive").exists()  # nothing is left to resume from
    found = read(tmp_path)["methods"]["attentive"]
    assert found["settings"] == {"epochs": 1, "queries": 8, "tokens": "the same in every epoch"}
    assert [row["layer"] for row in found["layers"]] == [1, 2]
    code, out, err = igpt(*words, "--method", "attentive,sgd", "--epochs", 1)
    assert code == 0, err
    assert "kept attentive" in out
    assert list(read(tmp_path)["methods"]) == ["attentive", "sgd"]
    lines = list(csv.DictReader((tmp_path / "probe.csv").read_text().splitlines()))
    assert [(line["method"], line["layer"]) for line in lines] == [
        (method, layer) for method in ("attentive", "sgd") for layer in "12"
    ]
    assert all(float(line["rate"]) > 0 for line in lines)
