"""What the page's buttons do, without a browser."""

import threading

import numpy as np
import pytest

import igpt
from igpt.show import actions
from igpt.show.actions import Desk
from igpt.system import UserError


@pytest.fixture(scope="module")
def desk(digits_run):
    return Desk(igpt.load(digits_run.checkpoint, device="cpu", precision="32-true"), limit=40)


def painted(rows, columns, size=64):
    """A layer of the brush over a part of a picture of `size` pixels."""
    layer = np.zeros((size, size, 4), np.uint8)
    layer[rows, columns] = (255, 127, 14, 176)
    return layer


def test_only_what_is_painted_is_drawn_or_only_what_is_not(desk):
    layer = painted(slice(0, 32), slice(0, 32))
    expected = np.zeros((8, 8), bool)
    expected[:4, :4] = True
    assert np.array_equal(actions.region(desk.model, [layer], "unpainted"), expected)
    assert np.array_equal(actions.region(desk.model, [layer], "painted"), ~expected)
    assert actions.region(desk.model, [layer], "half") is None


def test_a_completion_keeps_what_is_not_drawn_and_its_seed_decides(desk):
    picture = actions.shown(actions.example(desk, 3))
    drawn = actions.region(desk.model, [painted(slice(24, 64), slice(16, 64))], "unpainted")
    kept = actions.colours(desk, picture)
    two = [list(actions.completions(desk, picture, drawn, 3, 1.0, 0, seed)) for seed in (5, 6)]
    for one in two[0]:
        assert np.array_equal(one[~drawn], kept[~drawn])
    assert any(not np.array_equal(one[drawn], kept[drawn]) for one in two[0])
    assert np.array_equal(two[0][1], two[1][0])  # number i is of seed + i


def test_an_own_training_image_is_its_own_nearest_neighbour_in_every_layer(desk):
    for layer in range(desk.model.n_layers + 1):
        found = actions.neighbours(desk, actions.shown(desk.own_images[7]), layer)
        assert found[0][1] == pytest.approx(1, abs=1e-4)
        assert np.array_equal(found[0][0], desk.own_images[7])
        assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)


def test_the_mean_surprise_is_that_of_the_api(desk):
    picture = actions.shown(desk.own_images[2])
    map_, mean = actions.surprise(desk, picture)
    assert mean * 64 == pytest.approx(float(desk.model.nll(desk.own_images[2])[0]), rel=1e-5)
    assert map_.shape == (8, 8, 3)


def test_two_users_at_once_get_what_each_would_get_alone(desk):
    pictures = [actions.shown(actions.example(desk, number)) for number in (0, 9)]
    alone = [list(actions.completions(desk, one, None, 4, 1.0, 0, 0)) for one in pictures]
    found = {}

    def use(number):
        found[number] = list(actions.completions(desk, pictures[number], None, 4, 1.0, 0, 0))

    threads = [threading.Thread(target=use, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (0, 1):
        assert np.array_equal(found[number], alone[number])


@pytest.mark.parametrize("picture", [None, np.zeros((0, 0, 3), np.uint8), np.zeros((9, 9, 4), np.uint8)])
def test_where_there_is_no_picture_the_page_says_what_to_do(desk, picture):
    with pytest.raises(UserError, match="upload or draw one"):
        actions.surprise(desk, picture)


@pytest.mark.parametrize(("rows", "kept", "words"), [
    (slice(0, 0), "unpainted", "Nothing is painted"),
    (slice(0, 64), "painted", "Nothing is left"),
])  # fmt: skip
def test_a_brush_that_leaves_nothing_to_do_is_said(desk, rows, kept, words):
    with pytest.raises(UserError, match=words):
        actions.region(desk.model, [painted(rows, slice(0, 64))], kept)


def test_a_model_without_classes_says_so(desk):
    with pytest.raises(UserError, match="no class head"):
        actions.classes(desk, desk.own_images[0])


def test_bert_completes_a_picture_too(digits_bert_run):
    desk = Desk(igpt.load(digits_bert_run.checkpoint, device="cpu", precision="32-true"))
    drawn = np.zeros((8, 8), bool)
    drawn[2:4] = True
    picture = actions.example(desk, 0)
    (one,) = actions.completions(desk, picture, drawn, 1, 1.0, 0, 0)
    assert np.array_equal(one[~drawn], actions.colours(desk, picture)[~drawn])
