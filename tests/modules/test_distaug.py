"""Distribution augmentation: bijections of pictures, drawn by the step, of which the network is told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from igpt.data import rng_of
from igpt.model import TransformerConfig, draw_rows, rows_of, transform, transformations
from igpt.model.distaug import FAMILIES, SIZES, condition_names
from igpt.modules import Autoregressive, CoarseToFine
from igpt.palette import Palette
from igpt.system import UserError

SHAPE = TransformerConfig(2, 12, 3, 16, 7)
ALL = list(FAMILIES)
QUARTERS = [(0, 0), (0, 2), (2, 0), (2, 2)]


def images_of(count=5, side=4):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def module_of(kind=Autoregressive, shape=SHAPE, **options):
    """A module of seven greys whose weights, those of conditions included, are random and large enough to matter."""
    module = kind(shape, **options)
    levels = torch.linspace(-1, 1, shape.vocab_size)
    module.palette.load_state_dict(Palette(levels[:, None].expand(-1, 3).clone()).state_dict())
    torch.manual_seed(0)
    for parameter in module.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.eval()


def expected(family, number, image):
    """The picture, `(3, 4, 4)` in NumPy, as a member of a family makes it."""
    if family == "rotate":
        return np.rot90(image, number, axes=(1, 2))
    if family == "transpose":
        return image.swapaxes(1, 2)
    if family == "flip":
        return image[:, :, ::-1]
    if family == "colours":
        return image[list([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)][number])]
    orders = [(a, b, c, 6 - a - b - c) for a in range(4) for b in range(4) for c in range(4) if len({a, b, c}) == 3]
    made = np.zeros_like(image)
    for (top, left), source in zip(QUARTERS, sorted(orders)[number], strict=True):
        above, aside = QUARTERS[source]
        made[:, top : top + 2, left : left + 2] = image[:, above : above + 2, aside : aside + 2]
    return made


@pytest.mark.parametrize("family", ALL)
def test_each_member_of_a_family_is_the_transformation_that_it_is_named_for(family):
    images, known = images_of(), transformations([family], (4, 4))
    assert len(known.places) == SIZES[family]
    for row in rows_of([family])[family]:
        made = transform(images, torch.full((5, 1), row), known)
        for one, image in zip(made.numpy(), images.numpy(), strict=True):
            np.testing.assert_array_equal(one, expected(family, row + 1, image))


@pytest.mark.parametrize("shape", [(4, 4), (2, 6)])
def test_every_transformation_has_an_inverse_that_restores_pictures(shape):
    families = ALL if shape == (4, 4) else ["flip", "colours", "jigsaw"]
    known = transformations(families, shape)
    assert torch.equal(known.places.sort(1).values, torch.arange(shape[0] * shape[1]).expand_as(known.places))
    inverse = known._replace(places=known.places.argsort(1), channels=known.channels.argsort(1))
    images = torch.randint(256, (200, 3, *shape), dtype=torch.uint8)
    rows = draw_rows(torch.rand(200, len(families)), families)
    made = transform(images, rows, known)
    assert not torch.equal(made, images)
    assert torch.equal(transform(made, rows.flip(1), inverse), images)  # the last one first


def test_the_identity_changes_nothing_and_other_images_have_no_say():
    images, known = images_of(), transformations(ALL, (4, 4))
    rows = torch.full((5, 5), -1)
    assert torch.equal(transform(images, rows, known), images)
    rows[2, 0] = 1
    made = transform(images, rows, known)
    assert torch.equal(made[[0, 1, 3, 4]], images[[0, 1, 3, 4]])
    assert not torch.equal(made[2], images[2])


@pytest.mark.parametrize("identity", [None, 0.3, 0.9])
def test_images_stay_as_they_are_as_often_as_asked_for_and_all_else_is_equally_likely(identity):
    families = ["rotate", "colours", "flip"]
    rows = draw_rows(torch.rand(60_000, 3, generator=torch.Generator().manual_seed(0)), families, identity)
    share = 1 / (4 * 6 * 2) if identity is None else identity
    assert (rows < 0).all(1).float().mean().item() == pytest.approx(share, abs=0.01)
    for column, (family, known) in enumerate(rows_of(families).items()):
        counts = torch.bincount(rows[:, column] + 1, minlength=known.stop + 1)[known.start + 1 :]
        kept = 1 / SIZES[family] if identity is None else identity ** (1 / 3)
        torch.testing.assert_close(
            counts / 60_000, torch.full((len(known),), (1 - kept) / len(known)), atol=0.008, rtol=0
        )
        assert (rows[:, column] < 0).float().mean().item() == pytest.approx(kept, abs=0.01)


def test_the_families_are_drawn_independently():
    rows = draw_rows(torch.rand(40_000, 2, generator=torch.Generator().manual_seed(1)), ["rotate", "flip"])
    both = (rows < 0).all(1).float().mean()
    assert both.item() == pytest.approx(1 / 8, abs=0.01)


def conditioned(module, step, rank=0, images=8, world=None):
    """What training shows to one process of a step, as `step_rng` deals it out."""
    rng = rng_of(0, 0, step, 0, 0)
    torch.rand(rank * images * module.draws, generator=rng)
    batch = images_of(world or images)[rank * images : (rank + 1) * images]
    return module.conditioned("train", (batch, torch.zeros(len(batch), dtype=torch.int64)), rng)


def test_what_is_drawn_is_a_function_of_the_step_and_not_of_the_number_of_processes():
    module = module_of(augment=ALL)
    whole = conditioned(module, 3, images=16)
    parts = [conditioned(module, 3, rank, images=8, world=16) for rank in range(2)]
    for one, halves in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(one, torch.cat(halves))
    assert not torch.equal(whole[1], conditioned(module, 4, images=16)[1])


@torch.no_grad()
def test_an_image_as_it_is_has_the_loss_of_the_plain_model_whatever_the_vectors():
    module, plain = module_of(augment=ALL, identity_share=0.5), module_of()
    plain.transformer.load_state_dict(module.transformer.state_dict() | {}, strict=False)
    images = images_of()
    tokens, none = module.encode(images), torch.full((5, 5), -1)
    assert torch.equal(module.loss(tokens, rng_of(0), none), plain.loss(tokens, rng_of(0)))
    assert torch.equal(module.surprise(tokens), plain.surprise(tokens))
    shown, conditions = module.conditioned("val", (images, torch.zeros(5)), rng_of(0))
    assert conditions is None
    assert shown is images


@torch.no_grad()
def test_vectors_of_zeros_tell_nothing_and_others_are_added_up():
    module = module_of(augment=["rotate", "jigsaw"])
    tokens, rows = module.encode(images_of()), torch.tensor([[0, 5], [-1, 7], [2, -1], [1, 9], [-1, -1]])
    start = module.transformer.start(5, rows)
    table, sos = module.transformer.conditions, module.transformer.sos
    torch.testing.assert_close(start[:, 0], sos + torch.stack([table[0] + table[5], table[7], table[2],
                                                               table[1] + table[9], torch.zeros(12)]))  # fmt: skip
    told = module.loss(tokens, rng_of(0), rows)
    table.zero_()
    assert not torch.equal(told, module.loss(tokens, rng_of(0), rows))
    assert torch.equal(module.loss(tokens, rng_of(0), rows), module.loss(tokens, rng_of(0)))


@torch.no_grad()
def test_conditions_reach_every_output_and_pixels_only_later_ones():
    module = module_of(augment=["rotate"])
    tokens = module.encode(images_of(1))
    one, other = (module.transformer(tokens, causal=True, conditions=torch.tensor([[row]])) for row in (0, 1))
    assert ((one - other).abs().amax(2) > 1e-6).all()
    for place in range(16):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 7
        after = module.transformer(changed, causal=True, conditions=torch.tensor([[0]]))
        assert torch.equal(after[:, : place + 1], one[:, : place + 1])


def test_every_vector_that_is_drawn_learns_and_a_new_network_has_the_bits_of_the_plain_one():
    torch.manual_seed(0)
    plain = Autoregressive(SHAPE)
    torch.manual_seed(0)
    module = Autoregressive(SHAPE, augment=ALL)
    assert torch.count_nonzero(module.transformer.conditions) == 0
    for name, value in plain.transformer.state_dict().items():
        assert torch.equal(value, module.transformer.state_dict()[name]), name
    module = module_of(augment=["rotate", "flip"])
    rows = torch.tensor([[0, 3], [2, -1]])
    module.loss(module.encode(images_of(2)), rng_of(0), rows).backward()
    moved = module.transformer.conditions.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, False, True, True]


def test_records_of_a_model_without_augmentation_are_those_of_before():
    names = {"augment", "identity_share", "classes"}
    assert not names & module_of().spec()["init_args"].keys()
    assert not names & module_of(CoarseToFine, coarse=3).spec()["init_args"].keys()
    assert "conditions" not in module_of().transformer.config.to_dict()
    module = module_of(augment=["flip"], identity_share=0.5)
    again = Autoregressive(**module.spec()["init_args"])
    again.load_state_dict(module.state_dict())
    assert again.spec() == module.spec()


def saved(module, path):
    torch.save({"state_dict": module.state_dict(), "igpt": {"format": 1, "model": module.spec(), "data": None}}, path)
    return str(path)


def test_a_training_starts_from_weights_with_other_families_or_none(tmp_path):
    first = module_of(augment=["rotate", "colours"], classes=3)
    path = saved(first, tmp_path / "first.ckpt")
    plain = Autoregressive(SHAPE, start_from=path)
    assert plain.transformer.conditions is None
    other = Autoregressive(SHAPE, augment=["colours", "jigsaw"], classes=3, start_from=path)
    names = condition_names(other.augment, 3)
    known = condition_names(first.augment, 3)
    for name, vector in zip(names, other.transformer.conditions, strict=True):
        before = first.transformer.conditions[known.index(name)] if name in known else torch.zeros(12)
        assert torch.equal(vector, before), name
    assert sum(name in known for name in names) == 3 + 5
    fewer = Autoregressive(SHAPE, classes=2, start_from=path)  # other classes, whatever they are called
    assert torch.count_nonzero(fewer.transformer.conditions) == 0
    begun = Autoregressive(SHAPE, augment=["flip"], start_from=saved(module_of(), tmp_path / "plain.ckpt"))
    assert begun.transformer.conditions.shape == (1, 12)


@pytest.mark.parametrize(
    ("families", "shape", "message"),
    [
        (["rotate"], (2, 8), "rotate swaps the sides of pictures, which are 2x8"),
        (["flip", "transpose"], (2, 8), "transpose swaps the sides"),
        (["jigsaw"], (1, 16), "even sides, not 1x16"),
        (["spin"], (4, 4), "'spin' is unknown"),
        (["flip", "flip"], (4, 4), "'flip' is unknown or given twice"),
    ],
)
def test_transformations_that_pictures_do_not_allow_are_refused(families, shape, message):
    with pytest.raises(UserError, match=message):
        Autoregressive(replace(SHAPE, grid=shape), augment=families).check_ready()


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_that_leaves_none_or_all_is_refused(share):
    with pytest.raises(UserError, match="identity_share"):
        Autoregressive(SHAPE, augment=["flip"], identity_share=share)


def test_a_share_needs_families():
    with pytest.raises(UserError, match="needs augment"):
        Autoregressive(SHAPE, identity_share=0.5)
