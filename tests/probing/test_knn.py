import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from igpt.probing.methods.knn import ROWS, Neighbours, knn_layer, vote
from igpt.system.errors import UserError


def digits(noise=1e-3):
    """Digits of distinct similarities: a little noise keeps equal ones from standing in another order."""
    images, labels = load_digits(return_X_y=True)
    images = images + noise * np.random.default_rng(0).standard_normal(images.shape)
    return torch.from_numpy(images).float(), torch.from_numpy(labels)


def layer(*parts, **options):
    """The probe of one layer from features and labels of train, val and test in turn."""
    splits = dict(zip(("train", "val", "test"), zip(parts[::2], parts[1::2], strict=True), strict=True))
    return knn_layer((0,), splits, **options)


def cosine(queries, points):
    queries, points = queries.double().numpy(), points.double().numpy()
    return queries @ points.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(points, axis=1)


def brute_force(points, labels, queries, k):
    """Classes by a loop over images and classes, and how many of them a tie of votes had to decide."""
    found, ties = [], 0
    for row in cosine(queries, points):
        nearest = np.argsort(-row)[:k]
        votes = {c: (np.sum(labels[nearest] == c), row[nearest][labels[nearest] == c].sum()) for c in set(labels)}
        ties += sum(count == max(votes.values())[0] for count, _ in votes.values()) > 1
        found.append(max(votes, key=votes.get))
    return np.array(found), ties


def test_one_neighbour_gives_the_classes_of_scikit_learn():
    images, labels = digits(noise=0)
    neighbours = Neighbours(64)
    neighbours.add(images[:1400], labels[:1400])
    (ours,) = neighbours.classes(images[1400:], [1])
    theirs = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(images[:1400], labels[:1400])
    two = np.sort(cosine(images[1400:], images[:1400]), axis=1)[:, -2:]
    unequal = two[:, 1] - two[:, 0] > 1e-6
    assert unequal.mean() > 0.98
    assert np.array_equal(ours.numpy()[unequal], theirs.predict(images[1400:])[unequal])


@pytest.mark.parametrize("k", [1, 2, 5, 10, 20])
def test_every_k_gives_the_classes_of_brute_force(k):
    images, labels = digits()
    neighbours = Neighbours(64)
    neighbours.add(images[:300], labels[:300])
    found = neighbours.classes(images[300:900], [1, k, 20])[1]
    expected, ties = brute_force(images[:300], labels[:300].numpy(), images[300:900], k)
    assert np.array_equal(found.numpy(), expected)
    assert ties > 0 or k == 1


def test_more_images_than_are_handled_at_once_change_nothing():
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.randn(ROWS + 500, 6, generator=generator), torch.arange(ROWS + 500) % 7
    neighbours = Neighbours(6)
    neighbours.add(points, labels)
    queries = points + 0.01 * torch.randn(points.shape, generator=generator)
    theirs = KNeighborsClassifier(3, metric="cosine", algorithm="brute").fit(points, labels)
    nearest = theirs.kneighbors(queries, return_distance=False)
    decided = torch.tensor([len(set(row)) < 3 for row in labels[torch.from_numpy(nearest)].tolist()])
    ours = neighbours.classes(queries, [3])[0]
    assert (ours[decided] == torch.from_numpy(theirs.predict(queries))[decided]).float().mean() > 0.999


def test_ties_of_votes_go_to_the_greater_similarity_and_then_to_the_lower_class():
    labels = torch.tensor([[2, 1, 1, 2], [2, 1, 1, 2], [0, 1, 1, 2], [2, 1, 2, 1]])
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.65], [1.0, 0.1, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    assert vote(labels, similarity, 3).tolist() == [1, 2, 1, 1]


def test_k_is_chosen_on_validation_and_the_smaller_of_equals():
    images, labels = digits()
    parts = (images[:900], labels[:900], images[900:1300], labels[900:1300], images[1300:], labels[1300:])
    result = layer(*parts)
    assert list(result.tried) == [1, 5, 10, 20]  # where nobody says otherwise
    for k, share in result.tried.items():
        assert share == np.mean(brute_force(parts[0], parts[1].numpy(), parts[2], k)[0] == parts[3].numpy())
    best = max(result.tried.values())
    assert result.chosen == min(k for k, share in result.tried.items() if share == best)
    assert result.val_accuracy == best
    expected, _ = brute_force(images[:1300], labels[:1300].numpy(), parts[4], result.chosen)
    assert result.test_accuracy == np.mean(expected == parts[5].numpy())
    assert layer(*parts[:5], parts[5].flip(0)).chosen == result.chosen
    axes, classes = torch.eye(2).repeat(10, 1), torch.arange(2).repeat(10)
    easy = layer(axes, classes, axes, classes, axes, classes, ks=(5, 3, 10))
    assert (easy.chosen, easy.tried) == (3, {3: 1.0, 5: 1.0, 10: 1.0})


def test_the_test_is_scored_among_training_and_validation_images():
    axes, labels = torch.eye(4), torch.arange(4)
    result = layer(axes[:2], labels[:2], axes[2:], labels[2:], axes, labels, ks=[1])
    assert (result.val_accuracy, result.test_accuracy) == (0.0, 1.0)


def test_more_neighbours_than_training_images_are_left_out():
    images, labels = digits()
    parts = [part for some in (slice(0, 7), slice(7, 50), slice(50, 99)) for part in (images[some], labels[some])]
    assert set(layer(*parts).tried) == {1, 5}
    with pytest.raises(UserError, match=r"^--ks 8,20: no k .* the 7 training images"):
        layer(*parts, ks=[8, 20])


def test_length_does_not_count_and_zero_is_similar_to_nothing():
    images, labels = digits()
    lengths = torch.logspace(-6, 6, 1797)[:, None]
    neighbours, scaled = Neighbours(64), Neighbours(64)
    neighbours.add(images[:900], labels[:900])
    scaled.add(torch.cat([torch.zeros(1, 64), (images * lengths)[:900]]), torch.cat([torch.tensor([3]), labels[:900]]))
    ours = scaled.classes(images[900:], [1, 5])
    assert (ours == neighbours.classes(images[900:], [1, 5])).float().mean() > 0.999
    similarity, _ = scaled.index.search(np.zeros((1, 64), dtype=np.float32), 3)
    assert (similarity == 0).all()
    assert scaled.classes(torch.zeros(1, 64), [1, 5]).shape == (2, 1)


def test_features_that_are_no_numbers_are_refused():
    images, labels = digits()
    for value in (torch.nan, torch.inf):
        broken = images[:50].clone()
        broken[3, 2] = value
        with pytest.raises(UserError, match="infinite or no numbers"):
            layer(broken, labels[:50], images[50:80], labels[50:80], images[80:], labels[80:])
