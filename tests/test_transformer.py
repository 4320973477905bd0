import dataclasses
import math

import numpy as np
import pytest
import torch

from igpt.model.objectives import next_pixel_loss
from igpt.model.transformer import PRESETS, PixelTransformer, TransformerConfig, parameter_count
from igpt.system.errors import UserError
from tests.conftest import randomised
from tests.reference import numpy_igpt


def weights_of(model):
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def tokens_for(config, batch=3, seed=1):
    return torch.randint(config.vocab_size, (batch, config.n_positions), generator=torch.Generator().manual_seed(seed))


SHAPES = [
    TransformerConfig(3, 12, 3, 9, 7),
    TransformerConfig(2, 16, 4, 16, 5, norm="layer"),
    TransformerConfig(1, 8, 1, 4, 3),
    TransformerConfig(2, 12, 3, 9, 7, qk_norm=True),
]


@pytest.mark.parametrize("config", SHAPES, ids=["rms", "layer", "one-head", "qk-norm"])
@pytest.mark.parametrize("causal", [True, False])
def test_logits_and_features_agree_with_the_numpy_reference(config, causal):
    model, tokens = randomised(config), tokens_for(config)
    masked = None if causal else torch.rand(tokens.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    with torch.no_grad():
        logits = model(tokens, causal=causal, masked=masked)
        features = model.features(tokens, list(range(config.n_layers + 1)), causal=causal, masked=masked)
    for b in range(len(tokens)):
        expected_logits, expected_features = numpy_igpt.run(
            weights_of(model),
            tokens[b].numpy(),
            n_layers=config.n_layers,
            heads=config.n_heads,
            causal=causal,
            masked=None if masked is None else masked[b].numpy(),
        )
        np.testing.assert_allclose(logits[b].numpy(), expected_logits, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(features[:, b].numpy(), expected_features, atol=1e-5, rtol=1e-5)


def test_loss_agrees_with_the_numpy_reference(tiny):
    model, tokens = randomised(tiny), tokens_for(tiny)
    loss = next_pixel_loss(model(tokens, causal=True), tokens).item()
    expected = numpy_igpt.next_pixel_loss(weights_of(model), tokens.numpy(), n_layers=3, heads=3)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_gradients_agree_with_finite_differences_of_the_reference():
    config = TransformerConfig(2, 4, 2, 4, 3)
    model, tokens = randomised(config).double(), tokens_for(config, batch=2)
    next_pixel_loss_64 = torch.nn.functional.cross_entropy(model(tokens, causal=True).flatten(0, 1), tokens.flatten())
    next_pixel_loss_64.backward()
    weights, delta = weights_of(model), 1e-5
    for name, parameter in model.named_parameters():
        flat = weights[name].reshape(-1)
        for index in {0, flat.size // 2, flat.size - 1}:
            before = flat[index]
            sides = []
            for sign in (1, -1):
                flat[index] = before + sign * delta
                sides.append(numpy_igpt.next_pixel_loss(weights, tokens.numpy(), n_layers=2, heads=2))
            flat[index] = before
            slope = (sides[0] - sides[1]) / (2 * delta)
            assert parameter.grad.reshape(-1)[index].item() == pytest.approx(slope, abs=1e-7), name


def test_logits_of_pixel_i_do_not_depend_on_pixel_i_or_later(tiny):
    model, tokens = randomised(tiny), tokens_for(tiny, batch=1)
    with torch.no_grad():
        before = model(tokens, causal=True)
        for i in range(tiny.n_positions):
            changed = tokens.clone()
            changed[0, i:] = (changed[0, i:] + 1) % tiny.vocab_size
            after = model(changed, causal=True)
            assert torch.equal(before[0, : i + 1], after[0, : i + 1])
            if i + 1 < tiny.n_positions:
                assert not torch.allclose(before[0, i + 1 :], after[0, i + 1 :])


def test_every_logit_depends_on_every_pixel_without_the_causal_mask(tiny):
    model, tokens = randomised(tiny), tokens_for(tiny, batch=1)
    with torch.no_grad():
        before = model(tokens, causal=False)
        for i in range(tiny.n_positions):
            changed = tokens.clone()
            changed[0, i] = (changed[0, i] + 1) % tiny.vocab_size
            assert ((model(changed, causal=False) - before).abs().amax(-1) > 1e-6).all()


def test_masked_pixels_cannot_be_seen(tiny):
    model, tokens = randomised(tiny), tokens_for(tiny, batch=1)
    masked = torch.zeros(1, tiny.n_positions, dtype=torch.bool)
    masked[0, [2, 5]] = True
    changed = tokens.clone()
    changed[masked] = (changed[masked] + 1) % tiny.vocab_size
    with torch.no_grad():
        assert torch.equal(model(tokens, causal=False, masked=masked), model(changed, causal=False, masked=masked))


def test_the_bert_forward_is_permutation_equivariant_with_its_positions(tiny):
    model, tokens = randomised(tiny), tokens_for(tiny)
    order = torch.randperm(tiny.n_positions, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = model(tokens, causal=False)
        model.wpe.copy_(model.wpe[order].clone())
        after = model(tokens[:, order], causal=False)
    torch.testing.assert_close(after, before[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("preset", "count"), [("S", 76_571_648), ("M", 455_157_760), ("L", 1_362_250_752), ("XL", 6_810_875_904)]
)
def test_presets_have_the_published_parameter_counts(preset, count):
    assert parameter_count(PRESETS[preset]) == count


def test_without_sos_there_are_d_model_parameters_fewer():
    bert = dataclasses.replace(PRESETS["S"], sos=False)
    assert parameter_count(PRESETS["S"]) - parameter_count(bert) == 512


def test_there_are_no_biases_and_the_head_is_not_tied():
    model = PixelTransformer(TransformerConfig(2, 8, 2, 4, 3))
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]
    assert model.head.weight is not model.wte.weight


def test_initialisation_has_the_published_deviations():
    torch.manual_seed(0)
    n_layers, d_model = 4, 256
    model = PixelTransformer(TransformerConfig(n_layers, d_model, 4, 1024, 512))
    expected = {
        "wpe": 0.01,
        "wte.weight": 0.02,
        "sos": 0.02,
        "blocks.1.attn.qkv.weight": 1 / math.sqrt(d_model),
        "blocks.1.attn.proj.weight": 1 / math.sqrt(d_model * n_layers),
        "blocks.1.mlp.fc.weight": 0.02,
        "blocks.1.mlp.proj.weight": 0.02,
    }
    state = model.state_dict()
    for name, deviation in expected.items():
        assert state[name].std().item() == pytest.approx(deviation, rel=0.15 if name == "sos" else 0.02), name
    assert (state["head.weight"] == 0).all()
    assert all((value == 1).all() for name, value in state.items() if "ln_" in name)


def test_the_first_loss_is_the_log_of_the_vocabulary(tiny):
    model, tokens = PixelTransformer(tiny), tokens_for(tiny)
    assert next_pixel_loss(model(tokens, causal=True), tokens).item() == pytest.approx(math.log(tiny.vocab_size))


def test_asking_for_some_layers_gives_the_same_features_as_asking_for_all(tiny):
    model, tokens = randomised(tiny), tokens_for(tiny)
    with torch.no_grad():
        everything = model.features(tokens, [0, 1, 2, 3], causal=True)
        torch.testing.assert_close(model.features(tokens, [3, 1], causal=True), everything[[3, 1]])


@pytest.mark.parametrize(("layers", "words"), [([-1], "-1"), ([0, 4, 3, 9], "4,9"), ([], "")])
def test_layers_that_a_model_has_not_are_named(tiny, layers, words):
    with pytest.raises(UserError, match=f"^--layers {words}: this model has layers 0 to 3$"):
        randomised(tiny).features(tokens_for(tiny), layers, causal=True)


def test_compiled_blocks_keep_the_state_dict_keys(tiny):
    model = PixelTransformer(tiny)
    keys = list(model.state_dict())
    for block in model.blocks:
        block.compile()
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize(
    "wrong",
    [{"n_heads": 5}, {"n_layers": 0}, {"vocab_size": 0}, {"norm": "batch"}, {"residual": "half"}],
    ids=lambda w: next(iter(w)),
)
def test_a_config_that_cannot_be_built_names_the_field(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        dataclasses.replace(TransformerConfig(), **wrong)


def test_a_config_is_the_same_as_plain_data():
    config = TransformerConfig(3, 12, 3, 9, 7, norm="layer", sos=False)
    plain = config.to_dict()
    assert plain == {
        "n_layers": 3,
        "d_model": 12,
        "n_heads": 3,
        "n_positions": 9,
        "vocab_size": 7,
        "norm": "layer",
        "sos": False,
    }
    assert TransformerConfig.of(plain) == TransformerConfig.of(config) == config


@pytest.mark.parametrize("causal", [True, False])
def test_recomputing_the_blocks_changes_no_gradient(tiny, causal):
    model, tokens = randomised(tiny).train(), tokens_for(tiny)
    gradients = []
    for model.activation_checkpointing in (False, True):
        model.zero_grad()
        next_pixel_loss(model(tokens, causal=causal), tokens).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_recomputing_keeps_only_the_input_of_each_block(tiny):
    model, tokens = randomised(tiny).train(), tokens_for(tiny)
    assert not model.activation_checkpointing  # unless it is asked for
    kept = []
    for model.activation_checkpointing in (False, True):
        numbers = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: numbers.append(x.numel()) or x, lambda x: x):  # noqa: B023
            model.hidden_states(tokens, causal=True)
        kept.append(sum(numbers))
    assert kept[1] < kept[0] / 3


def residuals(model, tokens, mixed):
    """What goes from block to block, and the loss, in bf16-mixed or float32."""
    found = []
    hooks = [block.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0])) for block in model.blocks]
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss = next_pixel_loss(model(tokens, causal=True), tokens)
    for hook in hooks:
        hook.remove()
    return found, loss


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_residuals_are_bfloat16_where_asked_for_under_autocast_alone(tiny, norm):
    plain = randomised(dataclasses.replace(tiny, norm=norm))
    narrow = randomised(dataclasses.replace(tiny, norm=norm, residual="bfloat16"))
    tokens = tokens_for(tiny)
    types = [
        {h.dtype for h in residuals(model, tokens, mixed)[0]} for model in (plain, narrow) for mixed in (False, True)
    ]
    assert types == [{torch.float32}, {torch.float32}, {torch.float32}, {torch.bfloat16}]
    assert torch.equal(residuals(plain, tokens, False)[1], residuals(narrow, tokens, False)[1])


def test_with_bfloat16_residuals_loss_and_gradients_differ_by_its_rounding_alone(tiny):
    tokens, found = tokens_for(tiny, batch=16), {}
    for kind in (None, "bfloat16"):
        model = randomised(dataclasses.replace(tiny, residual=kind))
        loss = residuals(model, tokens, True)[1]
        loss.backward()
        found[kind] = loss, torch.cat([weight.grad.flatten() for weight in model.parameters()])
    (loss, gradient), (narrow, other) = found.values()
    assert narrow != loss
    torch.testing.assert_close(narrow, loss, rtol=0.004, atol=0)  # 2^-8
    assert (other - gradient).norm() < 0.02 * gradient.norm()


def test_features_are_averaged_in_float32_whatever_the_residuals(tiny):
    model, tokens = randomised(dataclasses.replace(tiny, residual="bfloat16")), tokens_for(tiny)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model.features(tokens, [0, 2], causal=True, normed=False).dtype == torch.float32
