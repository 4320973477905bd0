"""Dropout: in training alone, a function of seed, step, batch and process, and nothing where it is not asked for."""

from dataclasses import replace

import pytest
import torch

from igpt.model import TransformerConfig
from igpt.modules import Autoregressive, Joint
from igpt.modules.generative import keyed_dropout
from igpt.system import UserError
from tests.conftest import randomised

SHAPE = TransformerConfig(2, 12, 3, 9, 7)


def tokens_of(count=4, seed=0):
    return torch.randint(7, (count, 9), generator=torch.Generator().manual_seed(seed))


def module_of(step=0, rank=0, dropout=0.5, **options):
    """A module of random weights in training, at a step, in a process."""
    module = Autoregressive(replace(SHAPE, dropout=dropout), **options)
    module.transformer.load_state_dict(randomised(SHAPE).state_dict())
    placed = type("Placed", (Autoregressive,), {"global_step": step, "global_rank": rank})
    module.__class__ = placed
    return module.train()


def logits_of(module, batch_idx=0):
    with keyed_dropout(module, batch_idx):
        return module.transformer(tokens_of(), causal=True)


def test_a_share_of_the_embeddings_sum_is_zero_and_the_rest_keeps_its_mean():
    model = randomised(replace(SHAPE, dropout=0.25)).train()
    tokens = tokens_of(400)
    torch.manual_seed(0)
    dropped = model.embed(tokens, causal=True)
    whole = model.eval().embed(tokens, causal=True)
    kept = dropped != 0
    assert (~kept).float().mean().item() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)


@pytest.mark.parametrize("silent", ["attn", "mlp"])
def test_what_a_block_adds_is_dropped_and_the_residual_stream_is_not(silent):
    block, h = randomised(replace(SHAPE, dropout=0.25)).blocks[0], torch.randn(200, 9, 12)
    torch.nn.init.zeros_(getattr(block, silent).proj.weight)
    whole, added = block(h, True) - h, block.train()(h, True) - h
    kept = added != 0
    assert (~kept).float().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(added[kept], whole[kept] / 0.75, atol=1e-4, rtol=1e-4)


def test_evaluation_drops_nothing():
    config = replace(SHAPE, dropout=0.5)
    plain, dropping = randomised(SHAPE), randomised(config)
    assert torch.equal(plain(tokens_of(), causal=True), dropping(tokens_of(), causal=True))
    assert torch.equal(plain.features(tokens_of(), [1], causal=True), dropping.features(tokens_of(), [1], causal=True))


def test_without_dropout_nothing_is_drawn_and_records_do_not_know_of_it():
    model, state = randomised(SHAPE).train(), torch.get_rng_state()
    model(tokens_of(), causal=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert "dropout" not in SHAPE.to_dict()
    assert replace(SHAPE, dropout=0.1).to_dict()["dropout"] == 0.1
    assert TransformerConfig.of(replace(SHAPE, dropout=0.1).to_dict()).dropout == 0.1


def test_what_is_dropped_is_a_function_of_step_batch_and_process():
    first = logits_of(module_of())
    torch.manual_seed(99)  # whatever torch's generator has done before
    assert torch.equal(logits_of(module_of()), first)
    for other in (logits_of(module_of(step=1)), logits_of(module_of(), 1), logits_of(module_of(rank=1))):
        assert not torch.equal(other, first)


def test_the_generator_of_torch_goes_on_as_if_nothing_was_dropped():
    module = module_of()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    logits_of(module)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])  # compiling takes a minute
def test_recomputed_blocks_have_the_gradients_of_the_same_masks(compile):
    gradients = []
    for recompute in (False, True):
        module = module_of(recompute=recompute)
        if compile:
            for block in module.transformer.blocks:
                block.compile()
        with keyed_dropout(module, 0):
            loss = module.loss(tokens_of(), torch.Generator())
        loss.backward()
        gradients.append([parameter.grad for parameter in module.transformer.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_fine_tuning_drops_what_pre_training_did():
    module = Joint(3, generative=Autoregressive(replace(SHAPE, dropout=0.5)))
    torch.nn.init.normal_(module.classifier.weight)
    one, other = (module.class_logits(tokens_of()) for _ in range(2))
    assert not torch.equal(one, other)
    assert module.spec()["init_args"]["generative"]["init_args"]["transformer"]["dropout"] == 0.5


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_is_no_probability_is_refused(dropout):
    with pytest.raises(UserError, match=r"transformer\.dropout"):
        replace(SHAPE, dropout=dropout)
