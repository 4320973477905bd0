"""Findings on made-up runs whose verdict is known beforehand."""

from dataclasses import replace

import pytest

from igpt.report.comparing import group, labels
from igpt.report.findings import (
    CANNOT,
    NO_DATA,
    NOT_SEEN,
    SEEN,
    all_findings,
    beat_pixels,
    few_labels,
    joint,
    lower_loss,
    middle_layers,
    near_when_tuned,
    probes_behind,
    scale,
    vote,
)
from igpt.report.published import linear_accuracy
from igpt.report.schema import Data, Events, Features, LayerScore, LowData, Point, Score
from tests.report.made_up import DIGITS, NETWORK, PEAK, probe, result, run, scored, traced, tuned


def verdicts(finding):
    return [evidence.verdict for evidence in finding.evidence]


def around(mean, step=0.002):
    return [mean - step, mean, mean + step]


def three(objective, top, **more):
    """Three seeds of a probed pre-training run."""
    return [run(f"{objective}{i}", objective, [0.5] * 3 + [value] + [0.5] * 3, seed=i, **more)
            for i, value in enumerate(around(top))]  # fmt: skip


def three_tuned(core, mean, **more):
    return [tuned(f"{core}{i}{more}", core, value, seed=i, **more) for i, value in enumerate(around(mean))]


def test_features_beat_pixels_where_the_best_layer_does_in_every_run():
    assert verdicts(beat_pixels(three("AR", 0.97))) == [SEEN]  # raw pixels of made-up runs reach 0.95
    assert verdicts(beat_pixels(three("AR", 0.93))) == [NOT_SEEN]
    assert verdicts(beat_pixels(three("AR", 0.9505))) == [CANNOT]
    assert beat_pixels([run("a")]).evidence == []


def test_few_labels_compare_features_with_pixels_of_the_same_subsets():
    def labelled(features, pixels):
        rows = [[LayerScore(value, layer=3) for value in side] for side in (features, pixels)]
        return [run("a", probes=[probe(low_data=[LowData(25, *rows), LowData(4, rows[0])])])]

    finding = few_labels(labelled([0.8, 0.82], [0.6, 0.62]))
    assert verdicts(finding) == [SEEN]  # from 4 labels nobody fitted raw pixels
    assert "25 labels a class" in finding.evidence[0].numbers
    assert verdicts(few_labels(labelled([0.6, 0.62], [0.8, 0.82]))) == [NOT_SEEN]


def test_scale_compares_the_largest_network_with_the_smallest_of_runs_that_are_alike():
    small, middle = replace(NETWORK, d_model=24), replace(NETWORK, d_model=48)
    runs = three("AR", 0.9) + three("AR", 0.8, network=small) + three("AR", 0.2, network=middle)
    finding = scale(runs)
    assert verdicts(finding) == [SEEN]
    assert [width in finding.evidence[0].numbers for width in ("width 96", "width 24", "width 48")] == [
        True,
        True,
        False,
    ]
    assert verdicts(scale(three("AR", 0.8) + three("AR", 0.9, network=small))) == [NOT_SEEN]
    assert scale(three("AR", 0.9) + three("AR", 0.8, network=small, max_steps=900)).evidence == []


def test_a_clear_peak_in_the_middle_is_seen_and_a_single_run_is_called_one():
    finding = middle_layers([run("a", accuracies=PEAK)])
    assert verdicts(finding) == [SEEN]
    assert "single run" in finding.evidence[0].runs
    assert "best layer 3 of 6" in finding.evidence[0].numbers


def test_a_best_layer_at_an_end_is_not_seen():
    falling = [0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    assert verdicts(middle_layers([run("a", accuracies=falling)])) == [NOT_SEEN]


def test_a_peak_within_the_error_of_the_test_images_cannot_be_told():
    flat = [0.89, 0.89, 0.89, 0.90, 0.89, 0.89, 0.89]
    assert verdicts(middle_layers([run("a", accuracies=flat)])) == [CANNOT]
    tie = [0.9] * 7
    assert verdicts(middle_layers([run("a", accuracies=tie)])) == [CANNOT]


def test_the_best_layer_is_chosen_on_validation_and_judged_on_test():
    fooled = probe(accuracies=[0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], validation=[0.1, 0.2, 0.3, 0.9, 0.3, 0.2, 0.1])
    assert verdicts(middle_layers([run("a", probes=[fooled])])) == [CANNOT]  # layer 3 and layer 1 both give 0.5


def test_without_both_ends_and_middle_there_are_no_data_about_the_best_layer():
    short = probe(accuracies=[0.5, 0.6])  # layers 0 and 1 of 6
    assert verdicts(middle_layers([run("a", probes=[short])])) == [NO_DATA]


def test_runs_that_differ_in_their_seed_are_one_comparison():
    finding = middle_layers(three("AR", 0.9))
    assert len(finding.evidence) == 1
    assert "3 runs (seeds 0, 1, 2)" in finding.evidence[0].runs
    assert verdicts(finding) == [SEEN]


@pytest.mark.parametrize(("other", "name"), [
    ({"learning_rate": 0.003}, "AR, rate 0.003"), ({"max_steps": 900}, "AR, 900 steps"),
    ({"order": "spiral"}, "AR, spiral order"),
])  # fmt: skip
def test_runs_that_differ_in_their_recipe_are_two_kinds_and_their_names_say_in_what(other, name):
    kinds = list(group([run("a"), run("b", seed=1), run("c", **other)]))
    assert len(kinds) == 2
    assert name in labels(kinds).values()


def test_loss_and_accuracy_that_fall_and_rise_together_over_four_checkpoints_are_seen():
    finding = lower_loss([traced("a", [2.0, 1.8, 1.5, 1.2], [0.5, 0.6, 0.7, 0.8])])
    assert verdicts(finding) == [SEEN]
    assert "-1.00" in finding.evidence[0].numbers


def test_features_that_get_worse_as_the_loss_falls_are_not_seen():
    assert verdicts(lower_loss([traced("a", [2.0, 1.8, 1.5, 1.2], [0.8, 0.7, 0.6, 0.5])])) == [NOT_SEEN]


@pytest.mark.parametrize(("losses", "accuracies"), [
    ([1.5, 1.5, 1.5, 1.5], [0.5, 0.6, 0.7, 0.8]),
    ([2.0, 1.8, 1.5, 1.2], [0.7, 0.7, 0.7, 0.7]),
    ([2.0, 1.8, 1.5, 1.2], [0.5, 0.7, 0.6, 0.8]),
])  # fmt: skip
def test_ties_and_near_orders_cannot_be_told(losses, accuracies):
    assert verdicts(lower_loss([traced("a", losses, accuracies)])) == [CANNOT]


@pytest.mark.parametrize(("losses", "accuracies"), [([2.0, 1.8, 1.5], [0.5, 0.6, 0.7]), ([2.0], [0.5])])
def test_of_fewer_than_four_checkpoints_there_are_no_data_to_tell_by(losses, accuracies):
    assert verdicts(lower_loss([traced("a", losses, accuracies)])) == [NO_DATA]


def test_a_checkpoint_whose_loss_is_not_a_number_does_not_count():
    finding = lower_loss([traced("a", [float("nan"), 2.0, 1.8, 1.5, 1.2], [0.9, 0.5, 0.6, 0.7, 0.8])])
    assert verdicts(finding) == [SEEN]
    assert "4 checkpoints" in finding.evidence[0].runs


@pytest.mark.parametrize("other", [
    {"features": Features("raw", 1, 0, True, "float16")}, {"data": Data("CIFAR10", 32)}, {"images": {"train": 9}},
    {"method": "sgd", "methods": {"sgd": result([0.9] * 7)}},
])  # fmt: skip
def test_checkpoints_that_were_probed_in_another_way_than_the_last_do_not_count(other):
    told = traced("a", [2.0, 1.8, 1.5, 1.2], [0.5, 0.6, 0.7, 0.8])
    first, *rest = told.probes
    finding = lower_loss([replace(told, probes=[replace(first, **other), *rest])])
    assert verdicts(finding) == [NO_DATA]
    assert "3 checkpoints" in finding.evidence[0].runs
    assert "not probed as the last one: 1" in finding.evidence[0].numbers


def test_checkpoints_are_compared_by_a_method_that_they_share_though_it_is_not_the_main_one_of_each():
    told = traced("a", [2.0, 1.8, 1.5, 1.2], [0.5, 0.6, 0.7, 0.8])
    last = told.probes[-1]
    mixed = replace(last, method="knn", methods={"knn": result([0.1] * 7), **last.methods})
    finding = lower_loss([replace(told, probes=[*told.probes[:-1], mixed])])
    assert verdicts(finding) == [SEEN]
    assert "lbfgs" in finding.evidence[0].numbers


def test_bert_clearly_below_ar_on_probes_is_seen_and_above_it_is_not():
    assert verdicts(probes_behind(three("AR", 0.9) + three("BERT", 0.8))) == [SEEN]
    assert verdicts(probes_behind(three("AR", 0.8) + three("BERT", 0.9))) == [NOT_SEEN]
    assert verdicts(probes_behind(three("AR", 0.9) + three("BERT", 0.9))) == [CANNOT]


def attended(objective, linear, attentive):
    """Three seeds of a run probed both ways."""
    found = []
    for one, value in zip(three(objective, linear), around(attentive), strict=True):
        methods = {"attentive": result([value] * 7), **one.probes[0].methods}
        found.append(replace(one, probes=[replace(one.probes[0], methods=methods)]))
    return found


def test_bert_is_judged_by_the_linear_and_by_the_attentive_probe_where_both_sides_have_both():
    finding = probes_behind(attended("AR", 0.9, 0.9) + attended("BERT", 0.8, 0.95))
    assert verdicts(finding) == [SEEN, NOT_SEEN]
    linear, attentive = finding.evidence
    assert "lbfgs" in linear.numbers
    assert "attentive, best layer" in attentive.numbers
    assert attentive.subject == f"{linear.subject}; attentive probe"
    assert verdicts(probes_behind(attended("AR", 0.9, 0.9) + three("BERT", 0.8))) == [SEEN]


def test_a_published_linear_probe_is_never_set_beside_an_attentive_one():
    (one, *_) = attended("AR", 0.5, 0.9)
    probed = one.probes[0]
    assert linear_accuracy(replace(probed, method="attentive")) == probed.methods["lbfgs"].best.test_accuracy
    assert linear_accuracy(probed) == probed.methods["lbfgs"].best.test_accuracy
    alone = replace(probed, method="attentive", methods={"attentive": probed.methods["attentive"]})
    assert linear_accuracy(alone) is None


def test_bert_and_ar_of_other_shapes_or_data_are_not_compared():
    wider = {"network": NETWORK.__class__(6, 192, 4, 64, 17)}
    assert probes_behind(three("AR", 0.9) + three("BERT", 0.8, **wider)).evidence == []
    elsewhere = run("b", "BERT", probes=[probe(data=Data("CIFAR10", 32))])
    assert probes_behind([run("a", accuracies=PEAK), elsewhere]).evidence == []


def test_probes_of_another_protocol_are_not_compared():
    raw = run("b", "BERT", probes=[probe(features=Features("raw", 1, 0, True))])
    finding = probes_behind([run("a", accuracies=PEAK), raw])
    assert verdicts(finding) == [CANNOT]
    assert "norm raw" in finding.evidence[0].numbers
    masked = run("b", "BERT", probes=[probe([0.5] * 7, features=Features("normed", 1, 5, True))])
    assert verdicts(probes_behind([run("a", accuracies=PEAK), masked])) == [SEEN]


def test_of_several_recipes_the_one_best_on_validation_stands_for_its_side():
    weak = run("weak", "AR", [0.3] * 7, learning_rate=0.01)
    finding = probes_behind([weak, *three("AR", 0.9), *three("BERT", 0.8)])
    assert verdicts(finding) == [SEEN]
    assert "+10.0 points" in finding.evidence[0].numbers


def test_bert_that_catches_up_when_fine_tuned_is_seen_as_close():
    probed = three("AR", 0.9) + three("BERT", 0.8)
    close = three_tuned("AR", 0.95) + three_tuned("BERT", 0.94)
    far = three_tuned("AR", 0.95) + three_tuned("BERT", 0.85)
    ahead = three_tuned("AR", 0.95) + three_tuned("BERT", 0.97)
    assert verdicts(near_when_tuned(probed + close)) == [SEEN]
    assert verdicts(near_when_tuned(probed + far)) == [NOT_SEEN]
    assert verdicts(near_when_tuned(probed + ahead)) == [SEEN]


def test_half_of_the_gap_left_is_neither_close_nor_far():
    probed = three("AR", 0.9) + three("BERT", 0.8)
    half = three_tuned("AR", 0.95) + three_tuned("BERT", 0.90)
    assert verdicts(near_when_tuned(probed + half)) == [CANNOT]


def test_without_a_gap_on_probes_closeness_cannot_be_told():
    level = three("AR", 0.9) + three("BERT", 0.9)
    finding = near_when_tuned(level + three_tuned("AR", 0.95) + three_tuned("BERT", 0.95))
    assert verdicts(finding) == [CANNOT]
    assert "no gap" in finding.evidence[0].numbers


def test_a_gap_between_probes_of_two_ways_is_no_gap_and_the_reason_says_so():
    raw = [replace(bert, probes=[replace(bert.probe, features=Features("raw", 1, 0, True))])
           for bert in three("BERT", 0.8)]  # fmt: skip
    finding = near_when_tuned([*three("AR", 0.9), *raw, *three_tuned("AR", 0.95), *three_tuned("BERT", 0.95)])
    assert verdicts(finding) == [CANNOT]
    assert "not probed the same way" in finding.evidence[0].numbers
    assert "no gap" not in finding.evidence[0].numbers


def test_runs_from_scratch_or_of_unknown_origin_or_with_few_labels_say_nothing_about_pretraining():
    probed = three("AR", 0.9) + three("BERT", 0.8)
    few = Data("Digits", 8, batch_size=64, labels_per_class=4)
    for other in ({"origin": "scratch"}, {"data": few}):
        assert near_when_tuned(probed + three_tuned("AR", 0.95) + three_tuned("BERT", 0.94, **other)).evidence == []


def test_both_losses_above_classes_alone_is_seen_below_it_is_not_and_within_the_spread_cannot_be_told():
    for mean, verdict in ((0.95, SEEN), (0.85, NOT_SEEN), (0.9005, CANNOT)):
        runs = three_tuned("AR", mean) + three_tuned("AR", 0.9, weight=0.0)
        finding = joint(runs)
        assert verdicts(finding) == [verdict]
        assert "seeds 0, 1, 2" in finding.evidence[0].runs


def test_joint_and_classes_alone_are_compared_under_one_recipe_and_origin_only():
    joint_runs = three_tuned("AR", 0.95)
    assert joint(joint_runs + three_tuned("AR", 0.9, weight=0.0, learning_rate=0.01)).evidence == []
    assert joint(joint_runs + three_tuned("AR", 0.9, weight=0.0, origin="scratch")).evidence == []
    assert joint(joint_runs + three_tuned("BERT", 0.9, weight=0.0)).evidence == []
    assert joint(joint_runs).evidence == []


def test_one_run_a_side_needs_the_number_of_test_images_which_another_runs_probe_may_know():
    pair = [tuned("a", "AR", 0.95), tuned("b", "AR", 0.75, weight=0.0)]
    assert verdicts(joint(pair)) == [NO_DATA]
    finding = joint([*pair, run("c", accuracies=PEAK)])
    assert verdicts(finding) == [SEEN]
    assert "a single run" in finding.evidence[0].runs


def test_five_masks_are_compared_with_one_on_the_same_checkpoint():
    helped = [
        tuned(f"b{i}", "BERT", 0.92 + 0.01 * i, seed=i, scores=[scored(0.90 + 0.01 * i, masks=1)]) for i in range(3)
    ]
    more = tuned("b3", "BERT", 0.95, seed=3, scores=[scored(0.92, masks=1)])
    finding = vote([*helped, more])
    assert verdicts(finding) == [SEEN]
    assert "4 runs" in finding.evidence[0].runs
    elsewhere = tuned("c", "BERT", 0.95, scores=[scored(0.5, masks=1, checkpoint="last.ckpt", step=800)])
    assert vote([elsewhere]).evidence == []
    mean_of_logits = tuned("d", "BERT", 0.95, scores=[scored(0.5, masks=1, evaluation="mean")])
    assert vote([mean_of_logits]).evidence == []


def test_the_vote_of_equal_accuracies_cannot_be_told_and_ar_has_none():
    equal = [tuned(f"b{i}", "BERT", 0.9, seed=i, scores=[scored(0.9, masks=1)]) for i in range(3)]
    assert verdicts(vote(equal)) == [CANNOT]
    assert vote([tuned("a", "AR", 0.9, scores=[scored(0.8, masks=1)])]).evidence == []


def test_without_runs_that_tell_every_finding_says_what_it_needs():
    for finding in all_findings([run("a")]):
        assert finding.evidence == []
        assert "igpt" in finding.missing or "needs" in finding.missing
        assert finding.rule


def test_the_test_that_stands_for_a_run_is_evaluated_as_its_config_says_and_of_best():
    scores = [scored(0.7, checkpoint="last.ckpt", step=800), scored(0.6, masks=1), scored(0.91)]
    assert tuned("a", "BERT", 0.5, scores=scores).tested("accuracy") == 0.91
    assert tuned("a", "BERT", 0.5, scores=scores, evaluation=("mode", 1)).tested("accuracy") == 0.6
    only_events = Events(tested={"test/accuracy": 0.44})
    assert run("a", "Joint", events=only_events, evaluation=("mode", 5)).tested("accuracy") == 0.44


def test_scores_on_other_data_never_stand_for_the_run():
    elsewhere = Data("CIFAR10", 32)

    def entry(verb, value, data):
        return Score(verb, {f"{'val' if verb == 'validate' else verb}/loss": value}, "last.ckpt", 500, data=data)

    own = [entry("test", 1.0, DIGITS), entry("validate", 1.1, DIGITS)]
    other = [entry("test", 2.0, elsewhere), entry("validate", 2.1, elsewhere)]
    known = run("a", scores=[*own, *other])
    assert known.tested("loss") == 1.0
    assert known.val_loss_at(500).value == 1.1
    only_other = run("a", scores=other)
    assert only_other.tested("loss") is None
    assert only_other.val_loss_at(500) is None
    votes = [replace(scored(0.5, masks=1), data=elsewhere), scored(0.9, masks=1)]
    assert "one mask 90.0 %" in vote([tuned("b", "BERT", 0.95, scores=reversed(votes))]).evidence[0].numbers


def test_a_checkpoints_loss_is_that_of_the_nearest_earlier_validation():
    known = run("a", events=Events({"val/loss": [Point(100, 2.0), Point(200, 1.5), Point(300, 1.2)]}))
    assert known.val_loss_at(250) == Point(200, 1.5)
    assert known.val_loss_at(300) == Point(300, 1.2)
    assert known.val_loss_at(50) is None
