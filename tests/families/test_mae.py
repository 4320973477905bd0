"""The masked autoencoder: what it may see, what its loss counts, and features over all patches."""

import pytest
import torch

from igpt.data import rng_of
from igpt.families import MAE
from igpt.families.models.mae import waves
from igpt.system import UserError
from igpt.testing import check_source


def mae(**options):
    torch.manual_seed(0)
    sizes = {"resolution": 8, "patch": 2, "width": 16, "depth": 2, "heads": 2, "decoder_width": 8, "decoder_depth": 1}
    return MAE(**(sizes | options)).eval()


def images(count, side=8):
    return torch.randint(0, 256, (count, 3, side, side), generator=rng_of(5), dtype=torch.uint8)


def test_patches_are_the_squares_of_the_picture_row_by_row():
    given = images(1)
    found = mae().patches(given)[0]
    assert found.shape == (16, 12)
    for number in range(16):
        row, column = divmod(number, 4)
        square = given[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] / 127.5 - 1
        torch.testing.assert_close(found[number], square.flatten())


@torch.no_grad()
@pytest.mark.parametrize(("masked", "seen"), [(0.75, 4), (0.5, 8)])
def test_what_is_painted_hangs_on_the_patches_that_are_seen_alone(masked, seen):
    module = mae(masked=masked)
    assert module.seen == seen
    patches, order = module.patches(images(1)), torch.rand(1, 16, generator=rng_of(1)).argsort(1)
    before = module.predicted(patches, order)
    for place, patch in enumerate(order[0]):
        changed = patches.clone()
        changed[0, patch] += 1
        assert torch.equal(module.predicted(changed, order), before) == (place >= seen)


@torch.no_grad()
@pytest.mark.parametrize("norm_patches", [False, True])
def test_the_loss_is_the_squared_error_of_the_masked_patches_alone(norm_patches):
    module, given = mae(norm_patches=norm_patches), images(3)
    order = torch.rand(3, 16, generator=rng_of(2)).argsort(1)
    patches = module.patches(given)
    painted, total = module.predicted(patches, order), 0.0
    for picture in range(3):
        for patch in order[picture, 4:]:
            wanted = patches[picture, patch]
            if norm_patches:
                wanted = (wanted - wanted.mean()) / wanted.var(unbiased=False).sqrt()
            total += float((painted[picture, patch] - wanted).square().mean())
    assert float(module.losses(given, rng_of(2))["loss"]) == pytest.approx(total / 36, rel=1e-4)


@torch.no_grad()
def test_features_are_means_over_all_patches_behind_each_block():
    module, given = mae(), images(2)
    seen = []
    for block in module.blocks:
        block.register_forward_hook(lambda _, x, y: seen.append(y))
    found = module.features(given, module.layers)
    assert module.layers == ("patches", "block0", "block1")
    assert [one.shape for one in seen] == [(2, 16, 16)] * 2
    torch.testing.assert_close(found[0], (module.embed(module.patches(given)) + module.positions).mean(1))
    for one, other in zip(found[1:], seen, strict=True):
        torch.testing.assert_close(one, other.mean(1))


def test_every_place_has_waves_of_its_own():
    places = waves((3, 5), 16)
    assert places.shape == (15, 16)
    assert float(torch.pdist(places).min()) > 0.1
    torch.testing.assert_close(places[7], torch.cat([wave(torch.tensor(float(at)) * 10000.0 ** (-torch.arange(4) / 4))
                                                     for at in (1, 2) for wave in (torch.sin, torch.cos)]))  # fmt: skip


def test_it_keeps_the_contract_of_a_source():
    check_source(mae)
    assert not mae().offers("sample")


@pytest.mark.parametrize(
    "options", [{"patch": 3}, {"width": 18}, {"heads": 3}, {"masked": 0.0}, {"masked": 1.0}, {"masked": 0.01},
                {"masked": 0.99}, {"depth": 0}, {"decoder_width": 6}],
)  # fmt: skip
def test_numbers_that_describe_no_network_are_one_line(options):
    with pytest.raises(UserError, match=r"model\.init_args"):
        mae(**options)
