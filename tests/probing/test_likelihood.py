"""The likelihood in probe.json: of test images, by arithmetic of its own, and none where a network has none."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import igpt as api
from igpt.data import ImageDataModule, rng_of
from igpt.data.images import TensorImages
from igpt.families import PixelCNN, ProbedSource, checked_likelihood
from igpt.families.models.flow import EDGE
from igpt.modules import ByteAutoregressive
from igpt.probing import image_likelihood, likelihood
from igpt.system import Compute, UserError
from tests.families.test_contract import LikelyTogether
from tests.families.test_flow import flat, flow
from tests.families.test_flow import images as drawn
from tests.modules.test_byte_autoregressive import exact_nats, module_of
from tests.reference import numpy_igpt

QUICK = ["--layers", 1, "--method", "knn"]


class Few(ImageDataModule):
    """So many test images of random bytes."""

    def __init__(self, resolution=2, count=5):
        super().__init__(resolution)
        self.count = count

    def load(self):
        images = drawn(self.count, *self.shape)
        return dict.fromkeys(("train", "val", "test"), TensorImages(images, torch.arange(self.count) % 2))


def measured(module, data):
    """Of a network that no checkpoint holds."""
    task = SimpleNamespace(loaded=SimpleNamespace(module=module), data=data, compute=Compute("cpu", "bf16-mixed"))
    return image_likelihood(task)


def record(folder):
    return json.loads((folder / "probe.json").read_text())


@pytest.fixture(scope="module")
def probed(digits_run, tmp_path_factory):
    from igpt.cli import main

    out = tmp_path_factory.mktemp("probed") / "out"
    words = ["probe", "--ckpt", digits_run.checkpoint, *QUICK, "--precision", "bf16-mixed", "--out", out]
    assert main([str(word) for word in words]) == 0
    return out, words


def test_of_ar_it_is_the_numpy_references_mean_over_all_test_images(digits_run, probed, igpt):
    out, words = probed
    loaded = api.load(digits_run.checkpoint)
    tokens = loaded.module.encode(loaded.data().images("test").images).numpy()
    weights = {name: value.numpy() for name, value in loaded.module.transformer.state_dict().items()}
    nats = [numpy_igpt.next_pixel_loss(weights, one[None], n_layers=3, heads=4) for one in tokens]
    assert len(nats) == 359
    found = record(out)["likelihood"]
    assert found == {
        "images": 359,
        "exact": True,
        "of": "palette tokens",
        "mean_nats": pytest.approx(np.mean(nats), rel=1e-6),
        "std_nats": pytest.approx(np.std(nats), rel=1e-5),
        "mean_bits": pytest.approx(np.mean(nats) / np.log(2), rel=1e-6),
        "precision": "32-true",
    }
    line = (
        f"likelihood of 359 test images: {np.mean(nats):.4f} nats per pixel, {found['mean_bits']:.4f} bits of palette"
    )
    assert f"{line} tokens, exact\n" in igpt(*words)[1]


def test_bert_and_a_source_without_one_have_no_such_key_and_no_line(digits_bert_run, igpt, tmp_path):
    for number, words in enumerate(
        (["--ckpt", digits_bert_run.checkpoint], ["--source", "pixels", "--data", "Digits"])
    ):
        code, printed, err = igpt("probe", *words, "--layers", 0, "--method", "knn", "--out", tmp_path / str(number))
        assert code == 0, err
        assert "likelihood" not in printed + err
        assert "likelihood" not in record(tmp_path / str(number))


def test_a_record_of_before_gets_one_and_keeps_all_it_has(probed, igpt, tmp_path, monkeypatch):
    out = shutil.copytree(probed[0], tmp_path / "out")
    whole = record(out)
    old = {name: value for name, value in whole.items() if name != "likelihood"}
    (out / "probe.json").write_text(json.dumps(old))
    words = [*probed[1][:-1], out]
    code, printed, err = igpt(*words)
    assert code == 0, err
    assert "kept knn: " in printed
    assert (record(out)["likelihood"], record(out)["methods"]) == (whole["likelihood"], whole["methods"])
    monkeypatch.setattr("igpt.commands.probe.image_likelihood", lambda task: pytest.fail("measured again"))
    assert igpt(*words)[0] == 0
    assert record(out)["likelihood"] == whole["likelihood"]
    (out / "probe.json").write_text(json.dumps(whole | {"likelihood": {"images": 359}}))
    monkeypatch.undo()
    assert "which is now" in igpt(*words)[1]


def test_of_many_test_images_some_stand_for_all_evenly_spaced(digits_run, igpt, tmp_path, monkeypatch):
    monkeypatch.setattr(likelihood, "MOST", 60)
    code, printed, err = igpt("probe", "--ckpt", digits_run.checkpoint, *QUICK, "--out", tmp_path / "p")
    assert code == 0, err
    loaded = api.load(digits_run.checkpoint)
    places = [place * 358 // 59 for place in range(60)]
    nats = loaded.nll(loaded.data().images("test").images[places]) / 64
    found = record(tmp_path / "p")["likelihood"]
    assert found["images"] == 60
    assert found["mean_nats"] == pytest.approx(float(nats.mean()), rel=1e-5)
    assert "likelihood of 60 test images" in printed


def test_of_a_flow_it_is_a_bound_by_sixteen_draws_whose_determinants_are_autograds():
    module, data = flow(resolution=2, scales=1), Few()
    precise, given, rng = flow(resolution=2, scales=1).double(), data.images("test").images, rng_of(0)

    def whole(byte):
        share = EDGE + (1 - 2 * EDGE) * byte / 256
        return flat(precise, (2, 2))(torch.log(share) - torch.log(1 - share))

    def log_density(place):
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(whole(place)).sum().detach()
        return float(normal + torch.linalg.slogdet(torch.autograd.functional.jacobian(whole, place)).logabsdet)

    draws = [torch.rand(given.shape, generator=rng).double() for _ in range(16)]
    every = [[log_density((one + add).flatten()) for one, add in zip(given, noise, strict=True)] for noise in draws]
    nats = -np.log(np.exp(every).mean(0)) / 4
    found = measured(ProbedSource(module), data)
    assert (found.images, found.exact, found.of) == (5, False, "RGB values")
    assert found.mean_nats == pytest.approx(nats.mean(), rel=1e-5)
    assert found.std_nats == pytest.approx(nats.std(), rel=1e-4)
    assert found.bits_per_dim == pytest.approx(nats.mean() / 3 / math.log(2), rel=1e-5)
    assert found.text() == (
        f"likelihood of 5 test images: at most {found.mean_nats:.4f} nats per pixel, {found.bits_per_dim:.4f} bits per "
        "dimension of RGB values, by a bound"
    )


@torch.no_grad()
def test_of_bytes_it_is_in_bits_per_dimension_and_of_their_steps_in_bits_alone():
    data = Few(resolution=4)
    images = data.images("test").images
    for values, of in ((256, "RGB values"), (16, "RGB values in 16 steps")):
        module = module_of(values=values)
        nats = exact_nats(module, module.encode(images)) / 16
        found = measured(module, data)
        assert (found.exact, found.of) == (True, of)
        assert found.mean_nats == pytest.approx(nats.mean(), rel=1e-5)
        assert found.bits_per_dim == (pytest.approx(nats.mean() / 3 / math.log(2), rel=1e-5) if values == 256 else None)
        assert isinstance(module, ByteAutoregressive)


def test_one_that_is_no_number_is_a_line_and_no_key(capsys):
    module = PixelCNN(2, width=3, depth=1, levels=4).eval()
    module.head.conv.bias.data.fill_(math.nan)
    assert measured(ProbedSource(module), Few()) is None
    assert capsys.readouterr().out == "no likelihood of test images: of some it is infinite or no number\n"


def test_a_source_that_gives_no_number_an_image_is_one_line():
    with pytest.raises(UserError, match=r"log_likelihood\(\) gave float32 \(\), not floating \(3,\)"):
        checked_likelihood(LikelyTogether(), drawn(3))
