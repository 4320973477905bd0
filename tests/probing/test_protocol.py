"""What the protocol chooses and reports, on results and features so small that both can be read off."""

import pytest
import torch

from igpt.probing.methods.knn import knn_layers
from igpt.probing.methods.lbfgs import L2, lbfgs_layers
from igpt.probing.protocol import (
    LayerResult,
    accuracy,
    best_layer,
    joined,
    standardise,
    standardised_splits,
    window,
)


def test_penalties_fall_by_tens_from_the_stronger_to_the_weaker():
    assert pytest.approx([1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6], rel=1e-9) == L2


@pytest.mark.parametrize(
    ("best", "width", "expected"),
    [
        (3, 3, [2, 3, 4]),
        (0, 3, [0, 1, 2]),
        (6, 3, [4, 5, 6]),
        (3, 2, [2, 3]),
        (2, 1, [2]),
        (3, 7, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_window_lies_around_the_best_layer_and_inside_the_network(best, width, expected):
    assert window(best, width, n_layers=6) == expected


def test_the_features_of_several_layers_stand_one_after_another():
    features, labels = torch.arange(12.0).view(2, 3, 2), torch.tensor([0, 1, 0])
    wide, same = joined({"train": (features, labels)})["train"]
    assert wide.tolist() == [[[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]]
    assert same is labels


@pytest.mark.parametrize("layers", [(4,), (3, 4, 5)])
@pytest.mark.parametrize(("method", "chosen"), [("lbfgs", 1e-3), ("sgd", 3.0), ("knn", 10)])
@pytest.mark.parametrize("trained", [None, 0.75])
def test_a_result_survives_being_a_row_of_a_table(layers, method, chosen, trained):
    result = LayerResult(layers, chosen, 0.5, 0.25, trained)
    row = result.row(method)
    assert LayerResult.of(row, method) == result
    assert ("layer" in row) == (len(layers) == 1)
    assert ("train_accuracy" in row) == (trained is not None)
    assert result.layer == layers[0]


def test_of_equally_good_layers_the_lowest_is_best_and_the_test_has_no_say():
    results = [LayerResult((0,), 1, 0.5, 0.9), LayerResult((1,), 1, 0.6, 0.1), LayerResult((2,), 1, 0.6, 0.8)]
    assert best_layer(results) is results[1]


def test_accuracy_is_the_share_of_likeliest_classes_that_are_right():
    logits = torch.tensor([[[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 0.0]]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])).tolist() == [0.5]


def test_standardising_uses_the_reference_alone_and_leaves_no_trace_of_constants():
    reference = torch.tensor([[[1.0, 7.0], [3.0, 7.0]]])
    (scaled,) = standardise(reference, [torch.tensor([[[5.0, 9.0]]])])
    assert scaled.tolist() == [[[3.0, 0.0]]]


@pytest.mark.parametrize("method", [lbfgs_layers, knn_layers])
def test_standardising_lets_a_small_feature_speak_that_a_great_one_drowned(method):
    """The class stands in a feature of a hundredth; noise, the same in every split, in one of a hundred."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    splits = {}
    for name in ("train", "val", "test"):
        noise = 100 * torch.randn(60, 1, generator=generator)
        told = 0.01 * (2.0 * labels[:, None] - 1) + 0.001 * torch.randn(60, 1, generator=generator)
        splits[name] = torch.cat([noise, told], dim=1)[None], labels
    (with_it,) = method(standardised_splits(splits), [(0,)], 2)
    (without,) = method(splits, [(0,)], 2)
    assert with_it.test_accuracy == 1.0
    assert without.test_accuracy < 0.9


def test_a_method_gives_its_penalty_or_its_number_of_neighbours():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 2
    features = torch.randn(1, 30, 3, generator=generator) + labels[None, :, None]
    splits = dict.fromkeys(("train", "val", "test"), (features, labels))
    (fitted,) = lbfgs_layers(splits, [(0,)], 2)
    assert fitted.chosen in L2
    assert fitted.train_accuracy == fitted.test_accuracy  # the images are the same
    (counted,) = knn_layers(splits, [(0,)], 2)
    assert counted.chosen >= 1
    assert isinstance(counted.row("k")["k"], int)  # whole also in a table
    assert counted.train_accuracy is None
