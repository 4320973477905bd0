"""Linear probes by SGD beside a frozen network, on the digits."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from igpt.checkpoints.format import CHECKPOINT_KEY
from igpt.data import SplitOptions, TensorImages
from igpt.model.features import FeatureOptions
from igpt.modules import BERT, Autoregressive
from igpt.probing.methods.batches import FrozenFeatures
from igpt.probing.methods.lbfgs import fit_probes
from igpt.probing.methods.sgd import SGDRecipe
from igpt.probing.methods.sgd_training import FILE, StoredFeatures, sgd_probe
from igpt.probing.protocol import accuracy, standardise
from igpt.system.errors import UserError
from igpt.system.hardware import Compute
from igpt_datamodules import Digits
from tests.conftest import REPO

PALETTE = str(REPO / "palettes" / "digits.npy")
RATES = (10.0, 3.0)


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """The state is written after every epoch, however short they are."""
    monkeypatch.setattr("igpt.probing.methods.unfinished.EVERY_S", 0.0)


def network(kind=Autoregressive, seed=0, layers=2):
    """Random and small, but for its size and position embeddings: those of a trained one are not near zero."""
    torch.manual_seed(seed)
    shape = {"n_layers": layers, "d_model": 16, "n_heads": 2, "n_positions": 64, "vocab_size": 17}
    module = kind({**shape, "sos": kind is Autoregressive}, palette=PALETTE).eval()
    with torch.no_grad():
        for parameter in module.transformer.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    return module


def digits(**options):
    return Digits(batch_size=64, split=SplitOptions(labels_per_class=20), **options)


def probe(module, data, folder, groups=((0,), (1,), (1, 2)), how=FeatureOptions(), **options):
    compute = options.pop("compute", Compute("cpu", "32-true"))
    options = {"num_classes": 10, "rates": RATES, "epochs": 4, **options}
    return sgd_probe(module, data, SGDRecipe([list(group) for group in groups], how, **options), folder, compute)


def content(folder):
    return torch.load(folder / FILE, weights_only=True)


def counted(module):
    """Tokens of every forward pass of the first block's input, which stands for the network."""
    passes = []
    module.transformer.wte.register_forward_hook(lambda _, inputs, output: passes.append(inputs[0].clone()))
    return passes


@pytest.mark.parametrize(("groups", "rates"), [([(2,)], (1.0,)), ([(0,), (1,), (2,), (0, 2)], (30.0, 10.0, 3.0, 1.0))])
def test_the_network_runs_once_a_batch_whatever_the_number_of_layers_and_rates(tmp_path, groups, rates):
    module, data = network(), digits()
    passes = counted(module)
    probe(module, data, tmp_path, groups, rates=rates, epochs=3, statistics_images=100)
    statistics, train, val, test = 2, 200 // 64, math.ceil(data.size("val") / 64), math.ceil(data.size("test") / 64)
    assert len(passes) == statistics + 3 * (train + val) + test


@pytest.mark.parametrize("workers", [0, 1])
def test_every_epoch_sees_the_images_in_the_order_of_its_number(tmp_path, workers):
    module, data = network(), digits(num_workers=workers)
    passes = counted(module)
    probe(module, data, tmp_path, epochs=3, standardise=False)
    val = math.ceil(data.size("val") / 64)
    seen = [passes[epoch * (3 + val) : epoch * (3 + val) + 3] for epoch in range(3)]
    expected = digits().train_dataloader()  # each pass is the next epoch
    for epoch in range(3):
        assert all(torch.equal(a, module.encode(b[0])) for a, b in zip(seen[epoch], expected, strict=True))
    assert not torch.equal(seen[0][0], seen[1][0])


class PowerCutError(Exception):
    pass


def cut_after(module, passes):
    """Make the network fail for good after so many forward passes; gives the hook, to be removed."""
    left = iter(range(passes))

    def hook(*_):
        if next(left, None) is None:
            raise PowerCutError

    return module.transformer.wte.register_forward_hook(hook)


@pytest.mark.parametrize(
    ("kind", "how", "workers"),
    [(Autoregressive, FeatureOptions(), 0), (Autoregressive, FeatureOptions(), 1), (BERT, FeatureOptions(masks=1), 0)],
)
def test_an_interrupted_probe_goes_on_and_ends_bit_for_bit_as_if_it_had_not_been(tmp_path, kind, how, workers):
    module = network(kind)
    whole = probe(module, digits(), tmp_path / "whole", how=how, epochs=6)
    for passes in (18, 9):  # an epoch is 3 + 3 of them, after 4 for the statistics: in the middle of epochs 2 and 3
        hook = cut_after(module, passes)
        with pytest.raises(PowerCutError):
            probe(module, digits(num_workers=workers), tmp_path / "cut", how=how, epochs=6)
        hook.remove()
    assert content(tmp_path / "cut")["epochs_done"] == 3
    assert probe(module, digits(num_workers=workers), tmp_path / "cut", how=how, epochs=6) == whole
    one, other = content(tmp_path / "whole"), content(tmp_path / "cut")
    assert one["epochs_done"] == other["epochs_done"] == 6
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    for index, value in one["momentum"].items():
        assert torch.equal(value["momentum_buffer"], other["momentum"][index]["momentum_buffer"])


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from igpt.probing.methods import unfinished
from tests.modules.test_layer_probe import digits, network, probe
unfinished.EVERY_S = 0.0
probe(network(), digits(), Path(sys.argv[1]), epochs=40)
"""


def test_within_a_second_no_state_is_written_but_the_first_and_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr("igpt.probing.methods.unfinished.EVERY_S", 1000.0)
    done, save = [], torch.save
    monkeypatch.setattr("torch.save", lambda state, path: (done.append(state["epochs_done"]), save(state, path)))
    probe(network(), digits(), tmp_path, epochs=5)
    assert done == [1, 5]


@pytest.mark.slow
def test_a_killed_probe_goes_on_and_ends_bit_for_bit_as_if_it_had_not_been(tmp_path):
    whole = probe(network(), digits(), tmp_path / "whole", epochs=40)
    script = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "cut")]
    path, written = tmp_path / "cut" / FILE, []
    process = subprocess.Popen(script, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)})
    while process.poll() is None and len(written) < 4:
        if path.exists() and path.stat().st_mtime_ns not in written:
            written.append(path.stat().st_mtime_ns)
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < content(tmp_path / "cut")["epochs_done"] < 40
    assert probe(network(), digits(), tmp_path / "cut", epochs=40) == whole
    one, other = (content(tmp_path / name)["state_dict"] for name in ("whole", "cut"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_finished_probe_is_not_trained_again(tmp_path):
    module = network()
    results = probe(module, digits(), tmp_path)
    passes = counted(module)
    assert probe(module, digits(num_workers=1), tmp_path) == results
    assert len(passes) == math.ceil(digits().size("test") / 64)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"module": network(seed=1)}, "network"),
        ({"data": digits(seed=1)}, "data"),
        (
            {"how": FeatureOptions(norm="raw"), "epochs": 5, "compute": Compute("cpu", "bf16-mixed")},
            "how, epochs, precision",
        ),
    ],
)
def test_an_unfinished_probe_of_something_else_is_refused_and_a_finished_one_replaced(tmp_path, change, named):
    module = network()
    hook = cut_after(module, 20)
    with pytest.raises(PowerCutError):
        probe(module, digits(), tmp_path)
    hook.remove()
    call = partial(probe, **{"module": module, "data": digits(), "folder": tmp_path, **change})
    before = content(tmp_path)["epochs_done"]
    with pytest.raises(UserError, match=f"{FILE}: .* another {named}; finish it"):
        call()
    assert content(tmp_path)["epochs_done"] == before
    probe(module, digits(), tmp_path)
    assert call() == call(folder=tmp_path / "new")


def test_a_checkpoint_holds_the_probes_and_not_the_network(tmp_path):
    probe(network(), digits(), tmp_path)
    saved = content(tmp_path)
    weights = {name: tuple(value.shape) for name, value in saved["state_dict"].items()}
    assert weights == {
        "mean": (3, 16),
        "scale": (3, 16),
        "val_accuracy": (4, 3, 2),
        **{f"probes.weights.{group}": (width, 2, 10) for group, width in enumerate((16, 16, 32))},
        **{f"probes.biases.{group}": (2, 10) for group in range(3)},
    }
    arguments = saved[CHECKPOINT_KEY]["model"]["init_args"]
    assert len(arguments["network"]) == 64
    assert arguments["groups"] == [[0], [1], [1, 2]]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_it_was(tmp_path, training):
    module = network().train(training)
    modes = []
    module.transformer.ln_f.register_forward_hook(lambda part, *_: modes.append(part.training))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    probe(module, digits(), tmp_path, groups=[(2,)], epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None and not parameter.is_inference() for parameter in module.parameters())
    assert module.training is training
    assert modes
    assert not any(modes)


def layer_features(module, data, split, how=FeatureOptions()):
    """Features of all three layers of a split, as the network gives them, and labels."""
    batches = list(data.loader(split))
    with torch.no_grad():
        features = [module.features(module.encode(images), [0, 1, 2], how) for images, _ in batches]
    return torch.cat(features, dim=1), torch.cat([labels for _, labels in batches])


def test_results_are_those_of_the_saved_weights_on_features_standardised_by_the_training_split(tmp_path):
    module, data = network(), digits()
    results = probe(module, data, tmp_path)
    saved = content(tmp_path)["state_dict"]
    parts = {split: layer_features(module, data, split) for split in ("train", "val", "test")}
    scaled = dict(zip(parts, standardise(parts["train"][0], [part[0] for part in parts.values()]), strict=True))
    shares = {}
    for group, layers in enumerate([[0], [1], [1, 2]]):
        weight, bias = saved[f"probes.weights.{group}"], saved[f"probes.biases.{group}"]
        for split in ("val", "test"):
            x = torch.cat([scaled[split][layer] for layer in layers], dim=1) / math.sqrt(16 * len(layers))
            for index, rate in enumerate(RATES):
                right = (x @ weight[:, index] + bias[index]).argmax(1) == parts[split][1]
                shares[split, group, rate] = float(right.float().mean())
    for group, result in enumerate(results):
        assert result.tried == pytest.approx({rate: shares["val", group, rate] for rate in RATES}, abs=1e-6)
        assert result.val_accuracy == max(result.tried.values()) == result.tried[result.chosen]
        assert result.test_accuracy == pytest.approx(shares["test", group, result.chosen], abs=1e-6)
    assert [result.layers for result in results] == [(0,), (1,), (1, 2)]


def test_on_the_digits_sgd_comes_within_four_points_of_lbfgs(tmp_path):
    module, data, how = network(), Digits(), FeatureOptions(grid=4)
    results = probe(module, data, tmp_path, groups=[(0,), (1,), (2,)], how=how, rates=RATES, epochs=15)
    (train, labels), (test, test_labels) = (layer_features(module, data, split, how) for split in ("train", "test"))
    train, test = standardise(train, [train, test])
    theirs = accuracy(fit_probes(train, labels, [1e-3], 10).logits(test), test_labels)[:, 0].tolist()
    assert max(theirs) > 0.8
    assert [result.test_accuracy for result in results] == pytest.approx(theirs, abs=0.04)


def test_mean_and_deviation_are_of_the_images_that_the_seed_chooses_without_augmentation(tmp_path):
    module = network()
    for name, seed, count in (("a", 0, 50), ("b", 0, 50), ("c", 1, 50), ("all", 0, 1000)):
        probe(module, Flipped(seed=seed), tmp_path / name, epochs=1, statistics_images=count)
    mean = {name: content(tmp_path / name)["state_dict"]["mean"] for name in ("a", "b", "c", "all")}
    assert torch.equal(mean["a"], mean["b"])
    assert not torch.equal(mean["a"], mean["c"])
    torch.testing.assert_close(mean["all"], layer_features(module, digits(), "train")[0].mean(1))


class Negatives(TensorImages):
    """Images that training sees as negatives half of the time."""

    augments = True

    def draw(self, index, rng):
        image, label = self[index]
        return (255 - image if torch.rand((), generator=rng) < 0.5 else image), label


class Flipped(Digits):
    """Digits with that augmentation."""

    def __init__(self, seed=0):
        super().__init__(seed=seed, split=SplitOptions(labels_per_class=20))

    def load(self):
        found = super().load()
        return {"train": Negatives(found["train"].images, found["train"].labels), "test": found["test"]}


def test_training_sees_augmented_images_and_validation_does_not(tmp_path):
    module, data = network(), Flipped()
    passes = counted(module)
    probe(module, data, tmp_path, epochs=1, standardise=False)
    background = module.encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))[0, 0]
    share = [float((tokens[:, 0] == background).float().mean()) for tokens in passes]
    assert all(0.2 < value < 0.8 for value in share[:3])
    assert all(value > 0.9 for value in share[3:])


def test_where_the_network_runs_in_bfloat16_its_features_are_near_and_the_probes_in_float32(tmp_path):
    images, _ = next(iter(digits().loader("val")))
    how = [1, 2], FeatureOptions()
    exact, mixed = (
        FrozenFeatures(network(), digits(), *how, Compute("cpu", precision)).of(images, 1, 0)
        for precision in ("32-true", "bf16-mixed")
    )
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    torch.testing.assert_close(mixed, exact, atol=0.05, rtol=0.05)
    probe(network(), digits(), tmp_path, epochs=1, compute=Compute("cpu", "bf16-mixed"))
    assert {value.dtype for value in content(tmp_path)["state_dict"].values()} == {torch.float32}


class Given:
    """What `StoredFeatures` reads of a store."""

    def __init__(self, arrays):
        self.arrays = arrays
        layers, _, width = arrays["train_features"].shape
        self.widths = [width] * layers

    def labels(self, split):
        return self.arrays[f"{split}_labels"]

    def rows(self, layers):
        return layers

    def mapped(self, split):
        return self.arrays[f"{split}_features"]


def test_features_kept_in_memory_give_what_they_give_when_read_batch_by_batch_and_images_too(tmp_path):
    module, data = network(), digits()
    arrays = {}
    for name in ("train", "val", "test"):
        features, arrays[f"{name}_labels"] = layer_features(module, data, name)
        arrays[f"{name}_features"] = features.numpy()
    stored = {name: StoredFeatures(Given(arrays), name, [0, 1, 2]) for name in ("train", "val", "test")}
    probe(module, data, tmp_path / "images")
    passes, found = counted(module), {}
    for keep in (True, False):
        recipe = SGDRecipe([[0], [1], [1, 2]], FeatureOptions(), 10, RATES, 4)
        more = Compute("cpu", "32-true"), stored, lambda *_, keep=keep: keep
        found[keep] = sgd_probe(module, data, recipe, tmp_path / str(keep), *more)
    assert not passes  # the network is not run
    for one, other in zip(found[True], found[False], strict=True):
        assert one.tried == pytest.approx(other.tried, abs=0.01)
    one, other, third = (content(tmp_path / name)["state_dict"] for name in ("True", "False", "images"))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(value, third[name], atol=1e-3, rtol=1e-3)


def test_mixed_precision_comes_to_about_the_same(tmp_path):
    exact = probe(network(), digits(), tmp_path / "exact")
    mixed = probe(network(), digits(), tmp_path / "mixed", compute=Compute("cpu", "bf16-mixed"))
    assert [result.test_accuracy for result in mixed] == pytest.approx([r.test_accuracy for r in exact], abs=0.1)


def test_features_over_a_grid_make_wider_probes(tmp_path):
    probe(network(), digits(), tmp_path, how=FeatureOptions(grid=2), epochs=1)
    assert content(tmp_path)["state_dict"]["probes.weights.2"].shape == (2 * 4 * 16, 2, 10)


def test_fewer_images_than_a_batch_are_one_line(tmp_path):
    with pytest.raises(UserError, match="batch_size 2000") as caught:
        probe(network(), Digits(batch_size=2000), tmp_path / "probe")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "probe").exists()


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    probe(network(), digits(), tmp_path, epochs=1)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged or cut short"):
        probe(network(), digits(), tmp_path, epochs=1)


def refused_as_no_state(folder):
    """The file that stands where a probe's state should is named in one line, and left as it is."""
    before = (folder / FILE).read_bytes()
    with pytest.raises(UserError, match=rf"{FILE} is no state of a probe; delete it or change --out$") as caught:
        probe(network(), digits(), folder, epochs=1)
    assert "\n" not in str(caught.value)
    assert (folder / FILE).read_bytes() == before


def test_a_checkpoint_of_training_in_place_of_a_probes_state_is_one_line(digits_run, tmp_path):
    shutil.copy(digits_run.checkpoint, tmp_path / FILE)
    refused_as_no_state(tmp_path)


@pytest.mark.parametrize("name", ["momentum", "epochs_done", "state_dict"])
def test_a_probes_state_with_a_part_missing_or_of_another_kind_is_one_line(tmp_path, name):
    probe(network(), digits(), tmp_path, epochs=1)
    whole = content(tmp_path)
    torch.save({**whole, name: "none"}, tmp_path / FILE)
    refused_as_no_state(tmp_path)
    if name != "state_dict":  # without weights it is no checkpoint at all
        torch.save({part: value for part, value in whole.items() if part != name}, tmp_path / FILE)
        refused_as_no_state(tmp_path)


def test_the_state_of_another_kind_of_probe_is_one_line(tmp_path):
    probe(network(), digits(), tmp_path, epochs=1)
    whole = content(tmp_path)
    whole[CHECKPOINT_KEY]["model"]["class_path"] = "igpt.modules.Autoregressive"
    torch.save(whole, tmp_path / FILE)
    refused_as_no_state(tmp_path)
