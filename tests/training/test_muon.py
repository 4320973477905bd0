"""Muon against PyTorch's own, and which parameters an optimizer moves."""

import copy

import pytest
import torch
from torch import nn

from igpt.model.transformer import PixelTransformer, TransformerConfig
from igpt.training.muon import Muon, orthogonal
from igpt.training.optimizers import make_optimizer, matrices_of
from igpt.training.recipe import Recipe

CONFIG = TransformerConfig(2, 16, 2, 9, 7, qk_norm=True, positions="bias")


def model_of(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    model = PixelTransformer(config)
    nn.init.normal_(model.head.weight, std=0.1)  # zeros hide the gradient of all below
    return model


def backward(model, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(7, (4, 9), generator=generator)
    nn.functional.cross_entropy(model(tokens, causal=True).transpose(1, 2), tokens).backward()


def test_orthogonal_matrices_have_singular_values_near_one_and_the_directions_of_the_given_ones():
    torch.manual_seed(0)
    given = torch.randn(3, 8, 20)
    found = orthogonal(given)
    assert ((torch.linalg.svdvals(found) - 1).abs() < 0.35).all()
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    inner = left.mT @ found @ right.mT  # diagonal where the singular vectors are the same
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4


def test_it_does_not_matter_how_many_matrices_are_taken_at_once_nor_how_large_they_are():
    torch.manual_seed(0)
    given = torch.randn(5, 6, 9)
    each = torch.cat([orthogonal(1e3 * one[None]) for one in given])
    assert torch.allclose(orthogonal(given), each, atol=1e-5)
    assert torch.equal(orthogonal(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


@pytest.mark.parametrize("shape", [(12, 12), (8, 24), (24, 8)])
def test_it_steps_as_pytorchs_muon(shape):
    torch.manual_seed(0)
    one = nn.Parameter(torch.randn(shape))
    other = nn.Parameter(one.detach().clone())
    ours = Muon([(one, 1)], [], 0.02, weight_decay=0.1, dtype=torch.bfloat16)
    theirs = torch.optim.Muon([other], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        one.grad = torch.randn(shape)
        other.grad = one.grad.clone()
        before = one.detach().clone()
        ours.step()
        theirs.step()
        moved = (one - before).square().mean().sqrt()
        assert (one - other).square().mean().sqrt() < 0.02 * moved  # both round to bfloat16, in another order


def test_all_else_steps_as_pytorchs_adamw():
    one = nn.Parameter(torch.ones(5))
    other = nn.Parameter(torch.ones(5))
    ours = Muon([(nn.Parameter(torch.ones(2, 2)), 1)], [one], 0.02, (0.9, 0.95), weight_decay=0.1)
    theirs = torch.optim.AdamW([other], lr=0.02, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for _ in range(4):
        one.grad = torch.randn(5)
        other.grad = one.grad.clone()
        ours.step()
        theirs.step()
    assert torch.equal(one, other)


def test_queries_keys_and_values_become_orthogonal_each_by_itself():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(24, 8))
    weight.grad = torch.randn(24, 8) * torch.tensor([1.0, 100.0, 0.01]).repeat_interleave(8)[:, None]
    Muon([(weight, 3)], [], 1.0).step()
    for part in weight.detach().chunk(3):
        assert ((torch.linalg.svdvals(part) / (0.2 * 8**0.5) - 1).abs() < 0.35).all()


@pytest.mark.parametrize("config", [CONFIG, TransformerConfig(1, 16, 2, 9, 7, attention=["lsh"], slices=3)])
def test_every_parameter_is_moved_by_exactly_one_rule_and_muon_has_the_projections_of_the_blocks(config):
    model = model_of(config)
    optimizer = make_optimizer(Recipe(optimizer="muon"), model.parameters(), model)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    muon = {named[id(one)] for group in optimizer.param_groups if group["parts"] for one in group["params"]}
    ends = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc.weight", "mlp.proj.weight")
    assert muon == {f"blocks.{layer}.{end}" for layer in range(config.n_layers) for end in ends}
    parts = {end: parts for weight, parts in matrices_of(model) for end in ends if named[id(weight)].endswith(end)}
    assert parts == dict.fromkeys(ends, 1) | {"attn.qkv.weight": 2 if config.attention else 3}


def test_a_parameter_that_is_not_trained_is_left_alone():
    model = model_of()
    model.head.weight.requires_grad_(False)
    model.blocks[0].mlp.fc.weight.requires_grad_(False)
    optimizer = make_optimizer(Recipe(optimizer="muon"), model.parameters(), model)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_the_papers_optimizer_is_pytorchs_adam_over_all_parameters():
    model = model_of()
    optimizer = make_optimizer(Recipe(0.01, weight_decay=0.1), model.parameters(), model)
    assert type(optimizer) is torch.optim.Adam
    assert len(optimizer.param_groups) == 1
    assert {name: optimizer.defaults[name] for name in ("lr", "betas", "weight_decay")} == {
        "lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}  # fmt: skip


def test_its_state_is_plain_and_with_it_a_copy_goes_on_with_the_same_bits(tmp_path):
    model = model_of()
    optimizer = make_optimizer(Recipe(optimizer="muon"), model.parameters(), model)
    for seed in range(2):
        backward(model, seed)
        optimizer.step()
        optimizer.zero_grad()
    other = copy.deepcopy(model)
    torch.save(optimizer.state_dict(), tmp_path / "state")
    again = make_optimizer(Recipe(optimizer="muon"), other.parameters(), other)
    again.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for one, its in ((model, optimizer), (other, again)):
        backward(one, 2)
        its.step()
    assert all(torch.equal(*both) for both in zip(model.parameters(), other.parameters(), strict=True))


def test_weight_decay_pulls_at_matrices_alone():
    model = model_of()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(Recipe(0.5, weight_decay=0.5, optimizer="muon"), model.parameters(), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    matrices = {id(weight) for weight, _ in matrices_of(model)}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name] * (0.75 if id(parameter) in matrices else 1.0)), name
