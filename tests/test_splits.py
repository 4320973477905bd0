"""What a split is, beside being a partition: a function of its seed, and refused where it is none."""

import pytest

from igpt.data.splits import SplitOptions, few_per_class, stratified_split
from igpt.system.errors import UserError

LABELS = [0, 1, 1, 2] * 25


def test_a_seed_reproduces_a_split_and_another_gives_another():
    first, again, other = (stratified_split(LABELS, 0.2, seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_seed_reproduces_the_few_of_a_class_and_another_gives_others():
    first, again, other = (few_per_class(LABELS, 3, seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_what_is_split_off_is_no_stretch_of_the_images():
    _, off = stratified_split([0] * 100, 0.2, 0)
    assert off not in (list(range(20)), list(range(80, 100)))


def test_images_beyond_the_classes_whole_shares_go_to_the_greatest_fractions():
    labels = [0] * 6 + [1] * 9 + [2] * 5  # shares of a tenth: 0.6, 0.9 and 0.5 of an image
    _, off = stratified_split(labels, 0.1, 0)
    assert sorted(labels[index] for index in off) == [0, 1]


def test_as_many_as_the_scarcest_class_has_may_be_taken_and_no_more():
    assert few_per_class(LABELS, 25, 0)
    with pytest.raises(UserError, match=r"^--few 26: class 0 has only 25 training images"):
        few_per_class(LABELS, 26, 0, option="--few")


def test_the_paper_s_tenth_is_split_off_and_everything_is_trained_on_where_nobody_says_otherwise():
    assert SplitOptions() == SplitOptions(val_share=0.1, fold_validation=False, labels_per_class=None, subset_seed=0)
    assert SplitOptions.of({"val_share": 0.25}) == SplitOptions(0.25)
    assert SplitOptions.of(SplitOptions(0.25)) == SplitOptions(0.25)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(share):
    with pytest.raises(UserError, match=r"^split\.val_share"):
        SplitOptions(share)


def test_less_than_one_image_a_class_is_refused_and_one_is_not():
    assert SplitOptions(labels_per_class=1).labels_per_class == 1
    with pytest.raises(UserError, match=r"^split\.labels_per_class 0"):
        SplitOptions(labels_per_class=0)
