import math

import numpy as np
import pytest
import torch

from igpt.data import rng_of
from igpt.model.objectives import (
    NATS_PER_BIT,
    covering_masks,
    draw_mask,
    majority_vote,
    masked_pixel_loss,
    next_pixel_loss,
    pixel_nll,
)
from igpt.model.transformer import TransformerConfig
from igpt.modules import BERT, Autoregressive, Joint
from tests.conftest import randomised
from tests.reference import numpy_igpt

BERT_SHAPE = TransformerConfig(3, 12, 3, 9, 7, sos=False)
AR_SHAPE = TransformerConfig(3, 12, 3, 9, 7)


def weights_of(model):
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def tokens_of(batch, seed=1):
    return torch.randint(7, (batch, 9), generator=torch.Generator().manual_seed(seed))


def masks_of(batch):
    """One image without, one with all, others with some masked positions."""
    masked = draw_mask(batch, 9, 0.3, torch.Generator().manual_seed(2))
    masked[0] = False
    if batch > 1:
        masked[1] = True
    return masked


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_bert_loss_agrees_with_the_numpy_reference_with_an_empty_mask_among_them(batch):
    model, tokens, masked = randomised(BERT_SHAPE), tokens_of(batch), masks_of(batch)
    loss = masked_pixel_loss(model(tokens, causal=False, masked=masked), tokens, masked)
    expected = numpy_igpt.masked_pixel_loss(weights_of(model), tokens.numpy(), masked.numpy(), n_layers=3, heads=3)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_without_any_masked_position_the_loss_is_zero_and_so_is_its_gradient():
    logits = torch.randn(2, 9, 7, requires_grad=True)
    loss = masked_pixel_loss(logits, tokens_of(2), torch.zeros(2, 9, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_every_image_counts_the_same_however_much_of_it_is_masked():
    logits, tokens = torch.randn(2, 9, 7), tokens_of(2)
    masked = torch.zeros(2, 9, dtype=torch.bool)
    masked[0, 0] = True
    masked[1] = True
    nll = pixel_nll(logits, tokens)
    assert masked_pixel_loss(logits, tokens, masked).item() == pytest.approx((nll[0, 0] + nll[1].mean()).item() / 2)


def test_the_loss_scores_all_pixels_when_nothing_is_hidden_by_a_mask():
    logits, tokens = torch.randn(3, 9, 7), tokens_of(3)
    assert next_pixel_loss(logits, tokens).item() == pytest.approx(pixel_nll(logits, tokens).mean().item())


def test_a_pixel_of_two_equally_likely_colours_costs_one_bit():
    nats = pixel_nll(torch.zeros(1, 3, 2), torch.tensor([[0, 1, 0]]))
    torch.testing.assert_close(nats / NATS_PER_BIT, torch.ones(1, 3))


def test_masks_hold_each_position_independently_with_their_share():
    masked = draw_mask(4000, 25, 0.15, torch.Generator().manual_seed(0)).double()
    assert masked.mean().item() == pytest.approx(0.15, abs=0.005)
    counts = masked.sum(1)
    assert counts.var().item() == pytest.approx(25 * 0.15 * 0.85, rel=0.1)


def test_the_majority_vote_wins_and_ties_fall_either_way():
    votes = torch.tensor([[2, 0, 1], [2, 0, 1], [1, 3, 0], [2, 3, 0], [0, 0, 2]])
    assert majority_vote(votes, 4, torch.Generator().manual_seed(0))[:2].tolist() == [2, 0]
    drawn = {majority_vote(votes, 4, torch.Generator().manual_seed(seed))[2].item() for seed in range(40)}
    assert drawn == {0, 1}
    again = [majority_vote(votes, 4, torch.Generator().manual_seed(7)).tolist() for _ in range(2)]
    assert again[0] == again[1]


def joint_of(kind, shape, **options):
    torch.manual_seed(3)
    joint = Joint(num_classes=4, generative=kind(shape), **options)
    joint.generative.transformer.load_state_dict(randomised(shape).state_dict())
    torch.nn.init.normal_(joint.classifier.weight)
    return joint.eval()


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("kind", [Autoregressive, BERT])
def test_the_joint_losses_agree_with_the_numpy_reference(kind, batch, monkeypatch):
    shape = AR_SHAPE if kind is Autoregressive else BERT_SHAPE
    joint, tokens, labels = joint_of(kind, shape), tokens_of(batch), torch.arange(batch) % 4
    masked = None if kind is Autoregressive else masks_of(batch)
    monkeypatch.setattr(joint.generative, "draw_mask", lambda tokens, rng: masked)
    generative, classes, _ = joint.losses(tokens, labels, torch.Generator())
    weights = weights_of(joint.generative.transformer)
    if kind is Autoregressive:
        expected = numpy_igpt.next_pixel_loss(weights, tokens.numpy(), n_layers=3, heads=3)
    else:
        expected = numpy_igpt.masked_pixel_loss(weights, tokens.numpy(), masked.numpy(), n_layers=3, heads=3)
    assert generative.item() == pytest.approx(expected, abs=1e-5)
    expected = numpy_igpt.class_loss(
        weights,
        joint.classifier.weight.detach().double().numpy(),
        tokens.numpy(),
        labels.numpy(),
        causal=kind is Autoregressive,
        masks=None if masked is None else masked.numpy(),
        n_layers=3,
        heads=3,
    )
    assert classes.item() == pytest.approx(expected, abs=1e-5)


def test_the_class_loss_begins_at_the_log_of_the_classes():
    joint = Joint(num_classes=4, generative=Autoregressive(AR_SHAPE))
    _, classes, _ = joint.losses(tokens_of(3), torch.tensor([0, 1, 2]), torch.Generator())
    assert classes.item() == pytest.approx(math.log(4))


def test_evaluation_by_mode_mean_and_without_masks():
    tokens = tokens_of(20)
    results = {}
    for evaluation in ("mode", "mean", "unmasked"):
        joint = joint_of(BERT, BERT_SHAPE, evaluation=evaluation, eval_masks=5)
        predicted, logits = joint.predict_classes(tokens, rng_of(5))
        results[evaluation] = predicted
        if evaluation != "mode":
            assert torch.equal(predicted, logits.argmax(1))
    rng = rng_of(5)
    masks = [joint.generative.draw_mask(tokens, rng) for _ in range(5)]
    votes = np.stack([joint.class_logits(tokens, masked).argmax(1).numpy() for masked in masks])
    counts = np.stack([(votes == c).sum(0) for c in range(4)], axis=1)
    chosen = counts[np.arange(20), results["mode"].numpy()]
    assert (chosen == counts.max(1)).all()
    assert torch.equal(results["unmasked"], joint.class_logits(tokens).argmax(1))


def test_the_bert_loss_follows_its_randomness_alone():
    bert = BERT(BERT_SHAPE)
    tokens = tokens_of(6)
    bert.transformer.head.weight.data.normal_()
    one, again, later = (bert.loss(tokens, rng_of(0, step, 0, 0)) for step in (1, 1, 2))
    assert one == again
    assert one != later


@pytest.mark.parametrize(("share", "sizes"), [(0.5, {2, 3}), (0.3, {1, 2}), (0.01, {1}), (1.0, {5})])
def test_covering_masks_are_the_fewest_that_hide_about_their_share_each(share, sizes):
    masks = covering_masks(5, share, torch.Generator().manual_seed(0))
    assert set(masks.sum(1).tolist()) == sizes
    assert (masks.sum(0) == 1).all()


def test_one_vote_more_wins_whatever_the_randomness():
    votes = torch.tensor([[0], [1], [1], [0], [1]])
    assert {majority_vote(votes, 2, torch.Generator().manual_seed(seed)).item() for seed in range(40)} == {1}
