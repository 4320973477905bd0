"""AR that is told classes: a distribution for each, samples of them, guidance towards them, and the likeliest class."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import igpt
from igpt.data import rng_of
from igpt.model import SamplingOptions, TransformerConfig
from igpt.modules import Autoregressive, Joint
from igpt.runs.checks import check_told_classes
from igpt.system import UserError
from tests.modules.test_distaug import images_of, module_of, saved

WORLD = TransformerConfig(2, 12, 3, 4, 3)  # 2x2 pixels of 3 colours: 81 pictures
PICTURES = torch.tensor(list(itertools.product(range(3), repeat=4)))


def world(**options):
    return module_of(shape=WORLD, classes=4, **options)


@torch.no_grad()
def probabilities(module, label):
    conditions = None if label is None else torch.full((81, 1), label)
    return (-module.surprise(PICTURES, conditions=conditions).double().sum(1)).exp()


@pytest.mark.parametrize("options", [{}, {"order": "subscale2"}, {"augment": ["rotate"]}])
def test_the_probabilities_of_all_pictures_sum_to_one_under_every_class(options):
    module = world(**options)
    found = [probabilities(module, label) for label in (None, 0, 1, 2, 3)]
    for one in found:
        assert one.sum().item() == pytest.approx(1, abs=1e-6)
    for one, other in itertools.combinations(found, 2):
        assert (one - other).abs().max() > 1e-3
    with torch.no_grad():
        nats = module.class_nll(PICTURES)
    torch.testing.assert_close((-nats.double()).exp(), torch.stack(found[1:], 1))


@pytest.mark.parametrize("label", [0, 3])
def test_pictures_of_a_class_are_drawn_as_often_as_they_are_probable_under_it(label):
    module = world()
    drawn = module.sample(20_000, SamplingOptions(seed=1, labels=(label,)))
    number = (drawn * torch.tensor([27, 9, 3, 1])).sum(1)
    frequency = torch.bincount(number, minlength=81) / len(drawn)
    assert (frequency - probabilities(module, label)).abs().max() < 0.012


def test_each_picture_has_the_class_that_is_named_for_it():
    module = world()
    mixed = module.sample(40, SamplingOptions(seed=2, top_k=1, labels=(0, 1, 2, 3) * 10))
    for label in range(4):
        alone = module.sample(1, SamplingOptions(seed=2, top_k=1, labels=(label,)))
        assert torch.equal(mixed[label::4], alone.expand(10, -1))


def test_guidance_1_is_the_class_and_0_is_none_in_the_same_draws():
    module = world()
    plain = module.sample(50, SamplingOptions(seed=3))
    of_class = module.sample(50, SamplingOptions(seed=3, labels=(2,)))
    assert not torch.equal(plain, of_class)
    assert torch.equal(module.sample(50, SamplingOptions(seed=3, labels=(2,), guidance=1.0)), of_class)
    assert torch.equal(module.sample(50, SamplingOptions(seed=3, labels=(2,), guidance=0.0)), plain)


@torch.no_grad()
def test_guidance_draws_from_what_the_class_adds_to_the_logits():
    module, g = world(), 4.0
    drawn = module.sample(20_000, SamplingOptions(seed=4, labels=(1,), guidance=g))
    told = torch.full((81, 1), 1)
    given = module.transformer(PICTURES, causal=True, conditions=told).double()
    without = module.transformer(PICTURES, causal=True).double()
    logits = (1 - g) * without + g * given
    chosen = logits.log_softmax(2).gather(2, PICTURES[..., None])[..., 0].sum(1).exp()
    frequency = torch.bincount((drawn * torch.tensor([27, 9, 3, 1])).sum(1), minlength=81) / len(drawn)
    assert (frequency - chosen).abs().sum() < 0.08
    assert (chosen - probabilities(module, 1)).abs().sum() > 0.4


def test_one_image_in_ten_is_shown_without_its_class_and_those_without_a_label_always():
    module = module_of(augment=["flip"], classes=5)
    labels = torch.arange(5).repeat(2000)
    labels[:1000] = -1
    images = torch.zeros(10_000, 3, 4, 4, dtype=torch.uint8)
    _, conditions = module.conditioned("train", (images, labels), rng_of(1))
    told, flipped = conditions.unbind(1)
    assert (told[:1000] == -1).all()
    assert (told[1000:] == -1).float().mean().item() == pytest.approx(0.1, abs=0.012)
    assert ((told == labels) | (told == -1)).all()
    assert sorted(flipped.unique().tolist()) == [-1, 5]  # the row behind the classes
    for name in ("val", "test"):
        shown, given = module.conditioned(name, (images, labels), rng_of(1))
        assert shown is images
        assert torch.equal(given, labels[:, None])


@torch.no_grad()
def test_the_loss_of_an_unlabelled_image_is_that_without_a_class():
    module = module_of(classes=5)
    tokens = module.encode(images_of(4))
    told = torch.tensor([[2], [-1], [0], [-1]])
    nats = module.surprise(tokens, conditions=told)
    plain = module.surprise(tokens)
    torch.testing.assert_close(nats[[1, 3]], plain[[1, 3]])
    assert not torch.allclose(nats[[0, 2]], plain[[0, 2]])
    assert module.loss(tokens, rng_of(0), told).item() == pytest.approx(nats.mean().item(), rel=1e-6)


def test_fine_tuning_tells_nothing_and_leaves_the_vectors_as_they_are():
    joint = Joint(3, generative=module_of(classes=5)).train()
    loss, classes, _ = joint.losses(joint.core.encode(images_of(4)), torch.tensor([0, 1, 2, 0]), rng_of(0))
    (loss + classes).backward()
    assert joint.core.transformer.conditions.grad is None
    assert all(p.grad is not None for p in joint.parameters() if p.requires_grad)


def test_python_takes_names_and_numbers_and_gives_likelihoods_of_classes(tmp_path):
    module = module_of(classes=3)
    header = {"format": 1, "model": module.spec(), "data": None, "class_names": ["cat", "2", "emu"]}
    torch.save({"state_dict": module.state_dict(), "igpt": header}, tmp_path / "told.ckpt")
    model = igpt.load(tmp_path / "told.ckpt", device="cpu", precision="32-true")
    images = images_of(6)
    found = model.class_likelihoods(images)
    with torch.no_grad():
        tokens = module.encode(images)
        expected = [-module.surprise(tokens, conditions=torch.full((6, 1), label)).sum(1) for label in range(3)]
    np.testing.assert_allclose(found, torch.stack(expected, 1), rtol=1e-5)
    predicted = model.predict(images)
    assert predicted.names == ("cat", "2", "emu")
    np.testing.assert_array_equal(predicted.labels, found.argmax(1))
    np.testing.assert_allclose(predicted.probs, torch.from_numpy(found).softmax(1), rtol=1e-5)
    np.testing.assert_array_equal(model.sample(4, classes="2"), model.sample(4, classes=1))  # a name before a number
    mixed = model.sample(4, classes=["cat", 1, 0, "emu"], batch_size=3, top_k=1)
    np.testing.assert_array_equal(mixed[:1], model.sample(1, classes="cat", top_k=1))
    np.testing.assert_array_equal(mixed[3:], model.sample(1, classes="emu", top_k=1))
    assert not np.array_equal(model.sample(8, classes="emu", guidance=3.0), model.sample(8, classes="emu"))
    for options, message in [
        ({"classes": "dog"}, "classes dog: there is no such class; choose from cat, 2, emu"),
        ({"classes": 3}, "classes 3: there is no such class"),
        ({"classes": [0, 1]}, "classes: 2 are given for 16 pictures"),
        ({"guidance": 2.0}, "guidance 2.0 is towards a class"),
        ({"classes": 0, "guidance": -1.0}, "guidance -1.0 must be a number of at least 0"),
    ]:
        with pytest.raises(UserError, match=message):
            model.sample(**options)
    plain = igpt.load(saved(module_of(), tmp_path / "plain.ckpt"), device="cpu")
    for call in (lambda: plain.sample(classes=0), lambda: plain.class_likelihoods(images)):
        with pytest.raises(UserError, match="told no classes"):
            call()


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "has no labels, and the model is told classes"), (4, "classes is 10 but the data have 4")],
)
def test_data_without_labels_or_with_other_classes_are_refused(count, message):
    with pytest.raises(UserError, match=message):
        check_told_classes(10, SimpleNamespace(num_classes=count))


def test_a_single_class_is_refused():
    with pytest.raises(UserError, match="classes 1 must be at least 2"):
        Autoregressive(WORLD, classes=1)
