"""SimCLR: its loss against NumPy, its network against torchvision's, and its views."""

import numpy as np
import pytest
import torch
from torchvision import models

from igpt.data import rng_of
from igpt.families import SimCLR
from igpt.families.models.simclr import nt_xent, twins_found
from igpt.system import UserError
from igpt.testing import check_source


def images(count, side=8):
    return torch.randint(0, 256, (count, 3, side, side), generator=rng_of(5), dtype=torch.uint8)


def numpy_nt_xent(one, other, temperature):
    """Equation 1 of Chen et al. 2020, view by view."""
    views = np.concatenate([one, other]).astype(np.float64)
    cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in views] for a in views]
    losses = []
    for i in range(len(views)):
        twin = (i + len(one)) % len(views)
        others = sum(np.exp(cosine[i][k] / temperature) for k in range(len(views)) if k != i)
        losses.append(-np.log(np.exp(cosine[i][twin] / temperature) / others))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_the_loss_is_that_of_the_papers_equation(temperature):
    one, other = torch.randn(2, 7, 5, generator=rng_of(1))
    expected = numpy_nt_xent(one.numpy(), other.numpy(), temperature)
    assert float(nt_xent(one, other, temperature)) == pytest.approx(expected, rel=1e-5)
    assert float(nt_xent(other, one * 3, temperature)) == pytest.approx(expected, rel=1e-5)  # directions alone count


def test_views_that_are_all_alike_cost_the_logarithm_of_the_others_number():
    same = torch.ones(6, 4)
    assert float(nt_xent(same, same, 0.3)) == pytest.approx(np.log(11), rel=1e-6)


def test_twins_are_found_where_they_are_nearest():
    one = torch.eye(5)
    assert float(twins_found(one, one + 0.1)) == 1
    assert float(twins_found(one, one.roll(1, 0))) == 0


def test_the_network_is_torchvisions_resnet18_with_a_stem_of_3x3():
    module, given = SimCLR(8).eval(), images(3)
    other = models.resnet18(weights=None).eval()
    other.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    names = {"stem.0": "conv1", "stem.1": "bn1"}
    state = {}
    for name, value in module.network.state_dict().items():
        start = next((own for own in names if name.startswith(own)), None)
        state[name.replace(start, names[start]) if start else name] = value
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert (set(missing), unexpected) == ({"fc.weight", "fc.bias"}, [])
    with torch.no_grad():
        maps, expected = other.relu(other.bn1(other.conv1(given / 127.5 - 1))), []
        expected.append(maps.mean((2, 3)))
        for stage in (other.layer1, other.layer2, other.layer3, other.layer4):
            maps = stage(maps)
            expected.append(maps.mean((2, 3)))
        found = module.features(given, module.layers)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_view_without_crop_and_jitter_is_the_picture_or_its_mirror_image():
    module, given = SimCLR(8, width=2, smallest_crop=1.0, jitter=0.0), images(40)
    pictures, seen = given / 127.5 - 1, module.view(given, rng_of(1))
    straight = (seen - pictures).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (seen - pictures.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    assert (straight | mirrored).all()
    assert 8 < int(mirrored.sum()) < 32
    plain = SimCLR(8, width=2, smallest_crop=1.0, jitter=0.0, mirror=False).view(given, rng_of(1))
    torch.testing.assert_close(plain, pictures, rtol=0, atol=1e-4)


def test_crops_lie_within_the_picture_and_are_drawn_from_the_generator_alone():
    module = SimCLR(8, width=2, smallest_crop=0.5, jitter=0.0, mirror=False)
    ramp = torch.linspace(0, 255, 8).round().to(torch.uint8).expand(50, 3, 8, 8)  # from left to right
    seen = module.view(ramp, rng_of(3))
    across = seen[:, 0, 0, -1] - seen[:, 0, 0, 0]
    assert 2 * 0.45 < float(across.min()) < 2 * 0.6  # about half of the side
    assert 1.7 < float(across.max()) <= 2
    assert seen.abs().max() <= 1 + 1e-5
    assert torch.equal(seen, module.view(ramp, rng_of(3)))
    assert not torch.equal(seen, module.view(ramp, rng_of(4)))


def test_it_keeps_the_contract_of_a_source_and_offers_neither_likelihood_nor_samples():
    def make():
        torch.manual_seed(0)
        return SimCLR(8, width=4)

    check_source(make)
    assert not make().offers("sample")
    assert not make().offers("log_likelihood")


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"projection": 0}, {"temperature": 0.0}, {"smallest_crop": 0.0}, {"smallest_crop": 1.2},
                {"jitter": 1.0}],
)  # fmt: skip
def test_numbers_that_describe_no_training_are_one_line(options):
    with pytest.raises(UserError, match=r"model\.init_args"):
        SimCLR(**({"resolution": 8} | options))
