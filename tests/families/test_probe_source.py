"""`igpt probe --source`: the same probes, store and records as of a checkpoint, for layers of different widths."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import adaptive_avg_pool2d

from igpt.cli import main
from igpt.data import SPLITS
from igpt.families import FeatureSource, ProbedSource, open_source
from igpt.model import FeatureOptions
from igpt.probing import FeatureStore, SGDRecipe, StoredFeatures, sgd_probe, stored_features
from igpt.probing.store import StoreWriter, read_manifest
from igpt.system import Compute
from igpt_datamodules import Digits
from tests.probing.test_store import IDENTITY

SOURCE = ["--source", "torchvision:resnet18", "--weights", "random", "--data", "Digits"]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A probe of two layers of an untrained network, by all methods and with few labels."""
    home = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        words = [*SOURCE, "--method", "lbfgs,sgd,knn", "--epochs", "2", "--labels-per-class", "4", "--subsets", "2"]
        assert main(["probe", *words, "--layers", "0,2"]) == 0
    return home / "runs" / "torchvision_resnet18" / "probe"


def test_layers_are_probed_by_every_method_and_named(probed):
    found = json.loads((probed / "probe.json").read_text())
    source = open_source("torchvision:resnet18", weights="random")
    assert found["layer_names"] == list(source.layers)
    assert (found["checkpoint"], found["model"]) == ("torchvision:resnet18", "TorchVisionSource")
    for method in ("lbfgs", "sgd", "knn"):
        layers = found["methods"][method]["layers"]
        assert [row["layer"] for row in layers] == [0, 2]
        assert all(row["test_accuracy"] > 0.3 for row in layers)
    assert found["low_data"][0]["subsets"] == 2


def test_the_store_has_each_layers_features_and_zeros_behind_the_narrower_ones(probed):
    manifest = read_manifest(probed / "features")
    source = open_source("torchvision:resnet18", weights="random")
    images = torch.stack([image for image, _ in list(Digits().images("test"))[:5]])
    stored = np.load(probed / "features" / "test_features.npy")
    with torch.no_grad():
        expected = source.features(images, [source.layers[0], source.layers[2]])
    assert manifest["widths"] == [part.shape[1] for part in expected]
    assert manifest["width"] == max(manifest["widths"]) == stored.shape[2]
    for layer, part in enumerate(expected):
        np.testing.assert_allclose(stored[layer, :5, : part.shape[1]], part, rtol=2e-3, atol=2e-3)
        assert not stored[layer, :, part.shape[1] :].any()


def test_a_narrow_layers_accuracy_is_that_of_scikit_learns_regression_on_its_own_numbers(probed):
    row = json.loads((probed / "probe.json").read_text())["methods"]["lbfgs"]["layers"][0]
    width = read_manifest(probed / "features")["widths"][0]
    splits = {
        name: (
            np.load(probed / "features" / f"{name}_features.npy")[0, :, :width].astype(np.float64),
            np.load(probed / "features" / f"{name}_labels.npy"),
        )
        for name in ("train", "val", "test")
    }
    mean, deviation = splits["train"][0].mean(0), splits["train"][0].std(0)
    scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)
    x, labels = (np.concatenate([splits["train"][part], splits["val"][part]]) for part in (0, 1))
    model = LogisticRegression(C=1 / (row["strength"] * len(labels)), solver="newton-cholesky", tol=1e-8)
    model.fit((x - mean) * scale, labels)
    tested = model.score((splits["test"][0] - mean) * scale, splits["test"][1])
    assert row["test_accuracy"] == pytest.approx(tested, abs=0.006)


def test_the_same_command_again_computes_nothing(probed, igpt, monkeypatch):
    monkeypatch.chdir(probed.parents[2])
    before = (probed / "probe.json").stat().st_mtime_ns, (probed / "features" / "manifest.json").stat().st_mtime_ns
    code, out, err = igpt("probe", *SOURCE, "--layers", "0,2", "--method", "lbfgs")
    assert code == 0, err
    assert "kept lbfgs" in out
    assert "layers: 0 stem, 1 stage1" in out
    assert (probed / "features" / "manifest.json").stat().st_mtime_ns == before[1]


def test_a_layer_is_read_in_its_own_width_and_with_a_wider_one_in_that_ones(tmp_path):
    features = {name: torch.arange(2 * 3 * 4.0).view(2, 3, 4) for name in SPLITS}
    for part in features.values():
        part[0, :, 2:] = 0
    images = dict.fromkeys(features, 3)
    with StoreWriter(tmp_path / "store", IDENTITY, [0, 1], images, "float32", widths=[2, 4]) as writer:
        for name, part in features.items():
            writer.add(name, part, torch.tensor([0, 1, 0]))
    store = FeatureStore.open(tmp_path / "store", IDENTITY, [0, 1])
    assert list(store.in_turn([0, 1])) == [[0], [1]]
    assert store.features("test", [0]).tolist() == features["test"][:1, :, :2].tolist()
    assert store.features("test", [0, 1]).shape == (2, 3, 4)


class Sharper(FeatureSource):
    """The picture at a side of 1, 4 and 8 pixels: three layers of 3, 48 and 192 numbers."""

    layers = ("1", "4", "8")

    def features(self, images, layers):
        return [adaptive_avg_pool2d(images.float() / 255, int(side)).flatten(1) for side in layers]


def test_sgd_on_stored_features_is_that_on_images(tmp_path):
    data, module = Digits(batch_size=64), ProbedSource(Sharper())
    data.prepare_data()
    module.check_resolution((8, 8))
    how, compute = FeatureOptions(), Compute("cpu", "32-true")
    recipe = SGDRecipe([[0], [1], [0, 1]], how, 10, (3.0, 1.0), epochs=2)
    options = {"folder": tmp_path / "store", "own": False, "dtype": "float32", "compute": compute}
    store, _ = stored_features(module, "0" * 64, data, [0, 1, 2], how, **options)
    stored = {name: StoredFeatures(store, name, recipe.layers) for name in SPLITS}
    assert store.width > stored["test"][0][0].shape[1]  # a wider layer is in the store, and takes no part
    direct = sgd_probe(module, data, recipe, tmp_path / "direct", compute)
    kept = sgd_probe(module, data, recipe, tmp_path / "kept", compute, stored)
    for one, other in zip(direct, kept, strict=True):
        assert (one.layers, one.chosen) == (other.layers, other.chosen)
        assert one.val_accuracy == pytest.approx(other.val_accuracy, abs=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--norm", "raw"], "--norm raw is for igpt's own networks"),
        (["--grid", 2], "--grid 2 is for igpt's own networks"),
        (["--compile", "true"], "--compile is for igpt's own networks"),
        (["--masks", 2], "--masks 2 is for igpt's own networks"),
        (["--save"], "--save keeps a probe for 'igpt classify'"),
        (["--layers", "40"], "40"),
        (["--ckpt", "x.ckpt"], "x.ckpt"),
    ],
)
def test_what_is_for_transformers_alone_is_refused_in_one_line(igpt, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = igpt("probe", *SOURCE, *options)
    assert (code, err.count("\n")) == (2, 1), err
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_neither_checkpoint_nor_source_is_one_line(igpt):
    code, _, err = igpt("probe")
    assert (code, err.strip()) == (
        2,
        "igpt probe: give either --ckpt, a checkpoint or a run, or --source, such as torchvision:resnet18",
    )


def test_a_source_that_knows_no_data_asks_for_them(igpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = igpt("probe", *SOURCE[:4])
    assert (code, err.count("\n")) == (2, 1)
    assert "name the data with --data" in err
