"""Networks of torchvision as sources: their weights come from a file, and their features from every stage."""

import pytest
import torch
from torchvision import models

from igpt.cli import main
from igpt.families import open_source
from igpt.system import UserError
from igpt.testing import check_source
from tests.faults.conftest import Payload, mark  # noqa: F401


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The state dict's file of a network whose every weight is another than at the beginning."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(models.resnet18(weights=None).state_dict(), path)
    return path


def test_features_are_the_means_of_the_maps_of_each_stage_of_the_network_with_the_files_weights(weights):
    source = open_source("torchvision:resnet18", weights=str(weights))
    network = models.resnet18(weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.no_grad():
        maps = network.maxpool(network.relu(network.bn1(network.conv1((images / 255 - mean) / deviation))))
        expected = [maps.mean((2, 3))]
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            maps = stage(maps)
            expected.append(maps.mean((2, 3)))
        found = source.features(images, source.layers)
    assert source.layers == ("stem", "stage1", "stage2", "stage3", "stage4")
    assert [part.shape[1] for part in found] == [64, 64, 128, 256, 512]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_untrained_networks_keep_the_contract_and_leave_the_randomness_of_others_alone(name):
    state = torch.get_rng_state()
    check_source(lambda: open_source(f"torchvision:{name}", weights="random"), resolution=32)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("resnet18", None, "needs --weights FILE, a state dict's, or --weights random"),
        ("resnet17", "random", "no such network; give one such as .*resnet18"),
        ("", "random", "no such network"),
        ("swin_t", "random", "no convolutional stages"),
        ("vit_b_16", "random", "no convolutional stages"),
        ("resnet18", "gone.pth", "--weights gone.pth does not exist"),
    ],
)
def test_what_cannot_be_opened_is_one_line(name, weights, words):
    options = {} if weights is None else {"weights": weights}
    with pytest.raises(UserError, match=words) as error:
        open_source(f"torchvision:{name}", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["code", "bytes", "another", "list", "nan"])
def test_a_file_that_is_no_state_dict_of_the_network_is_one_line_and_is_not_executed(kind, tmp_path, mark, weights):  # noqa: F811
    path = tmp_path / "weights.pth"
    if kind == "bytes":
        path.write_bytes(b"no weights")
    else:
        state = torch.load(weights, weights_only=True)
        lost = state | {"fc.bias": torch.full((1000,), torch.nan)}
        kinds = {"code": Payload(mark), "another": {"w": torch.ones(2)}, "list": [torch.ones(2)], "nan": lost}
        torch.save(kinds[kind], path)
    with pytest.raises(UserError, match="--weights"):
        open_source("torchvision:resnet18", weights=str(path))


def test_a_checkpoint_takes_no_weights(digits_run, capsys):
    assert main(["probe", "--ckpt", str(digits_run.checkpoint), "--weights", "random"]) == 2
    assert "--weights random is of a --source" in capsys.readouterr().err
