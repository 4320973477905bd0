"""The API: `igpt.load` and what its models do with pictures of any kind. Equality with the verbs: test_api_verbs.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import igpt as api
from igpt.api import Model
from igpt.data import TensorImages
from igpt.modules import Loaded
from igpt_datamodules import Digits
from igpt_datamodules.files import Stored, StoredImages


@pytest.fixture(scope="module")
def model(digits_run):
    return api.load(digits_run.checkpoint)


@pytest.fixture(scope="module")
def test_images():
    images = Digits().images("test")
    return torch.stack([images[index][0] for index in range(5)])


def photo(width, height, mode="RGB"):
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels)).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def test_importing_igpt_imports_no_torch():
    code = (
        "import sys, igpt; assert not {'torch', 'numpy', 'lightning', 'PIL'} & set(sys.modules); print(len(dir(igpt)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.strip().isdigit()


def test_all_public_names_are_found():
    assert all(getattr(api, name) is not None for name in api.__all__)
    with pytest.raises(AttributeError):
        api.nothing  # noqa: B018


def test_every_kind_of_one_image_is_the_same_image(model, test_images, tmp_path):
    one = test_images[0]
    hwc = one.permute(1, 2, 0).numpy()
    Image.fromarray(hwc).save(tmp_path / "one.png")
    kinds = [
        tmp_path / "one.png", str(tmp_path / "one.png"), Image.fromarray(hwc), hwc, one, one.numpy(), hwc[..., 0],
        hwc[None], one[None], hwc / 255, one.float() / 255, (one.double() / 255).requires_grad_(), hwc.astype(np.int64),
        torch.cat([one, torch.full_like(one[:1], 255)]), one[:1], [one], (hwc,),
        TensorImages(one[None], torch.zeros(1)),
    ]  # fmt: skip
    expected = model.palette.encode(one)
    assert expected.shape == (1, 64)
    assert (expected == model.module.core.palette.encode(one[None]).numpy()).all()
    for kind in kinds:
        assert (model.palette.encode(kind) == expected).all(), type(kind)
    assert (model.palette.encode([*kinds[:6]]) == expected).all()
    assert (model.palette.encode(np.array([str(kinds[0])] * 2)) == expected).all()
    with pytest.raises(api.UserError, match="tuple is no image"):
        model.palette.encode([(one, one)])  # two images, not one with its label


@pytest.mark.parametrize("size", [(31, 47), (300, 225), (8, 9), (5, 3)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_image_of_any_size_is_what_a_data_module_makes_of_its_file(model, tmp_path, size, mode):
    path = tmp_path / "photo.png"
    photo(*size, mode).save(path)
    seen = StoredImages([Stored(str(path))], [0], 8)[0][0]
    kinds = [path, Image.open(path), np.asarray(Image.open(path))]
    for kind in kinds:
        assert torch.equal(next(model.batches(kind))[0], seen)


def test_a_photo_turned_by_its_exif_is_upright_as_a_file_and_as_an_image(model, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    photo(40, 24).save(tmp_path / "turned.png", exif=exif)
    as_file, as_image = (
        next(model.batches(one)) for one in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png"))
    )
    upright = next(model.batches(photo(40, 24).transpose(Image.Transpose.ROTATE_270)))
    assert torch.equal(as_file, as_image)
    assert torch.equal(as_file, upright)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "empty"),
        (7, "a int"),
        (object(), "a object"),
        ({"a": 1}, "a dict"),
        ([7], "int is no image"),
        (np.zeros((5, 8, 8)), r"shape \(5, 8, 8\)"),
        (np.zeros(8), r"shape \(8,\)"),
        (np.zeros((0, 8, 3)), "no image"),
        (np.full((8, 8, 3), 255.0), r"floats must lie in \[0, 1\]"),
        (np.full((8, 8, 3), np.nan), "floats"),
        (np.full((8, 8, 3), 256), "0..255"),
        (np.full((8, 8, 3), -1), "0..255"),
        (np.zeros((8, 8, 3), complex), "complex128"),
        ("missing.png", "missing.png does not exist"),
        ("tests", "find_pictures"),
        (Image.new("F", (8, 8)), "mode F"),
    ],
)
def test_what_is_no_image_is_said_in_one_line(model, images, words):
    with pytest.raises(api.UserError, match=words) as error:
        model.features(images)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: m.features(x, layers=[9]), r"^layers 9: this model has layers 0 to 3$"),
        (lambda m, x: m.features(x, layers=[-5]), r"^layers 4: this model has layers 0 to 3$"),
        (lambda m, x: m.features(x, layers=[]), "^layers "),
        (lambda m, x: m.features(x, layers=[1.5]), r"^layers \[1.5\] must be whole numbers"),
        (lambda m, x: m.features(x, layers="all"), "^layers 'all' must be whole numbers"),
        (lambda m, x: m.features(x, norm="odd"), "^norm odd"),
        (lambda m, x: m.features(x, grid=9), "^grid 9"),
        (lambda m, x: m.features(x, masks=1), "leave masks out"),
        (lambda m, x: m.features(x, batch_size=0), "^batch_size"),
        (lambda m, x: m.sample(4, temperature=0), r"^temperature 0 .* use top_k 1"),
        (lambda m, x: m.sample(4, top_k=-1), "^top_k -1"),
        (lambda m, x: m.sample(4, seed=-1), "^seed -1"),
        (lambda m, x: m.sample(0), "^num"),
        (lambda m, x: m.sample(1, steps=3), "^steps 3"),
        (lambda m, x: m.complete(x, keep=1.0), "^keep 1.0"),
        (lambda m, x: m.complete(x, region=np.zeros((8, 8), bool)), "^region"),
        (lambda m, x: m.complete(x, region=np.ones((4, 4), bool)), "^region"),
        (lambda m, x: m.predict(x), "no class head.*'igpt probe --save'"),
        (lambda m, x: m.palette.decode(np.full((1, 64), 99)), r"^tokens must lie in 0\.\.16"),
        (lambda m, x: m.palette.decode(np.zeros((1, 63), int)), "^tokens"),
        (lambda m, x: m.forward_features(x[0]), "^images must be a tensor"),
        (lambda m, x: api.load(m.path, device="tpu"), "^device tpu"),
        (lambda m, x: api.load(m.path.parent / "none.ckpt"), "none.ckpt does not exist"),
        (lambda m, x: api.load(m.path, probe="nowhere"), "^probe nowhere has no probe.safetensors"),
        (lambda m, x: api.create_model("igpt-q"), "choose from igpt-s"),
        (lambda m, x: api.create_model("igpt-s", n_layer=2), "did you mean n_layers"),
        (lambda m, x: api.create_model("igpt-s", objective="gan"), "^objective"),
        (lambda m, x: api.create_model("igpt-s", order="random"), "there is no option 'order'"),
    ],
)
def test_errors_speak_of_python_arguments(model, test_images, call, words):
    with pytest.raises(api.UserError, match=words) as error:
        call(model, test_images)
    assert "init_args" not in str(error.value)


def test_layers_are_counted_from_both_ends(model, test_images):
    found = model.features(test_images, layers=[3, -1, 0, -4])
    assert list(found) == [3, -1, 0, -4]
    assert (found[3] == found[-1]).all()
    assert (found[0] == found[-4]).all()
    assert found[3].shape == (5, 32)
    assert found[3].dtype == np.float32
    assert list(model.features(test_images[0])) == [0, 1, 2, 3]
    assert list(model.features(test_images[0], layers=2)) == [2]
    assert list(model.features(test_images[0], layers=np.int64(2))) == [2]


def test_gradients_are_kept_where_they_are_asked_for_only(model, test_images):
    assert not model.forward_features(test_images, [1, -1]).requires_grad
    found = model.forward_features(test_images, [1, -1], gradients=True)
    assert found.shape == (2, 5, 32)
    found.sum().backward()
    assert model.module.transformer.wte.weight.grad.abs().sum() > 0
    model.module.zero_grad()
    assert np.allclose(found.detach()[1], model.features(test_images, -1)[-1])


def test_the_nll_of_pixels_sums_to_that_of_the_image_in_raster_order(model, test_images):
    whole, pixels = model.nll(test_images), model.nll(test_images, per_pixel=True)
    assert (whole.shape, pixels.shape) == ((5,), (5, 8, 8))
    assert np.allclose(pixels.sum((1, 2)), whole, rtol=1e-5)
    assert 0 < whole.min() / 64 < whole.max() / 64 < np.log(17) + 3


def test_pixels_are_in_raster_order_whatever_the_order_of_the_sequence(digits_run, test_images):
    shape = api.TransformerConfig(2, 16, 2, 64, 17)
    module = api.Autoregressive(shape, palette=str(digits_run.palette), order="random")
    torch.nn.init.normal_(module.transformer.head.weight, generator=torch.Generator().manual_seed(0))
    mixed = Model(Loaded(module.eval(), Path("random"), 0, None), "cpu", "32-true")
    with torch.inference_mode():
        sequence = module.surprise(module.encode(test_images)).numpy()
    pixels = mixed.nll(test_images, per_pixel=True).reshape(5, 64)
    assert (pixels[:, module.pixel_order.numpy()] == sequence).all()
    assert (pixels != sequence).any()
    assert (mixed.palette.decode(mixed.palette.encode(test_images))[..., 0] == test_images[:, 0].numpy()).all()


def test_samples_and_completions_are_arrays_that_become_pictures(model, test_images, tmp_path):
    pics = model.sample(5, top_k=3, seed=1)
    assert (pics.shape, pics.dtype) == ((5, 8, 8, 3), np.uint8)
    assert (pics == model.sample(5, top_k=3, seed=1)).all()
    assert (pics != model.sample(5, top_k=3, seed=2)).any()
    assert [one.size for one in pics.to_pil()] == [(8, 8)] * 5
    assert pics[0].to_pil().getpixel((3, 4)) == tuple(pics[0, 4, 3])
    done = model.complete(test_images[:2], keep=0.5, num=3)
    assert done.shape == (2, 3, 8, 8, 3)
    quantised = model.palette.decode(model.palette.encode(test_images[:2]))
    assert (done[:, :, :4] == quantised[:, None, :4]).all()
    assert (done[:, :, 4:] != quantised[:, None, 4:]).any()
    assert [len(row) for row in done.to_pil()] == [3, 3]
    done.save(tmp_path / "done.png")
    with Image.open(tmp_path / "done.png") as shown:
        assert shown.width > shown.height >= 128  # a row of three for each of two images, enlarged
    assert done._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(api.UserError, match="no pictures"):
        done.astype(float).to_pil()


def test_pictures_beyond_one_batch_have_randomness_of_their_own(model, test_images):
    pics = model.sample(6, batch_size=3)
    assert (pics[:3] == model.sample(3)).all()
    assert (pics[3:] != pics[:3]).any()
    done = model.complete(test_images[:1].repeat(2, 1, 1, 1), num=2, batch_size=2)
    assert (done[0] == model.complete(test_images[0], num=2)[0]).all()
    assert (done[1] != done[0]).any()


def test_a_region_is_drawn_and_nothing_else(model, test_images, tmp_path):
    region = np.zeros((8, 8), bool)
    region[2:4, 4:8] = True
    Image.fromarray(region).save(tmp_path / "mask.png")
    done = model.complete(test_images[:2], num=3, region=region)
    quantised = model.palette.decode(model.palette.encode(test_images[:2]))
    assert (done[:, :, ~region] == quantised[:, None, ~region]).all()
    assert (done[:, :, region] != quantised[:, None, region]).any()
    assert (done == model.complete(test_images[:2], num=3, region=tmp_path / "mask.png")).all()


def test_results_do_not_depend_on_how_images_are_read(model, tmp_path):
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.full((9, 9, 3), number * 12, np.uint8)).save(paths[-1])
    assert (model.nll(paths, workers=2) == model.nll(paths)).all()
    (tmp_path / "3.png").write_bytes(b"")
    broken = []
    kept = model.nll(paths, broken=broken)
    assert (kept == model.nll(paths[:3] + paths[4:])).all()
    assert [(name, "zero bytes" in reason) for name, reason in broken] == [(str(paths[3]), True)]
    with pytest.raises(api.UserError, match="zero bytes"):
        model.nll(paths)
    with pytest.raises(api.UserError, match="none of the 1 given can be read"):
        model.nll(paths[3], broken=[])


def test_a_model_is_found_by_its_run(digits_run, monkeypatch, tmp_path):
    assert api.load(digits_run.folder).path == digits_run.checkpoint
    assert api.load(digits_run.folder / "checkpoints").step == 30
    monkeypatch.chdir(digits_run.home)
    assert api.load("mini").step == 30
    (tmp_path / "checkpoints").mkdir()
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / "checkpoints" / name).symlink_to(digits_run.checkpoint)
    assert api.load(tmp_path).path.name == "best.ckpt"
    with pytest.raises(api.UserError, match="is a folder without a checkpoint"):
        api.load(digits_run.home / "palettes")


def test_a_new_model_has_the_published_shape_and_is_changed_by_keywords(digits_run, test_images):
    small = api.create_model("igpt-s", n_layers=2, d_model=16, n_heads=2, resolution=8, palette=digits_run.palette)
    config = small.module.transformer.config
    assert (config.n_layers, config.d_model, config.vocab_size, config.n_positions) == (2, 16, 17, 64)
    assert np.allclose(small.nll(test_images) / 64, np.log(17))
    bert = api.create_model("igpt-s", objective="bert", n_layers=1, d_model=16, n_heads=2, resolution=8, num_classes=3,
                            palette=api.Palette.load(digits_run.palette))  # fmt: skip
    probs = bert.predict(test_images)
    assert np.allclose(probs, 1 / 3)
    assert probs.names == ("0", "1", "2")


def test_a_new_model_takes_the_weights_of_a_checkpoint_at_its_own_resolution(digits_run, model, test_images):
    shape = {"n_layers": 3, "d_model": 32, "n_heads": 4, "vocab_size": 17}
    same = api.create_model("igpt-s", digits_run.folder, resolution=8, **shape)
    assert (same.nll(test_images) == model.nll(test_images)).all()
    larger = api.create_model("igpt-s", digits_run.checkpoint, resolution=16, **shape)
    assert larger.sample(1).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("kind", ["checkpoint", "huggingface"])
def test_weights_of_another_shape_are_refused_by_the_field_that_differs(digits_run, igpt, tmp_path, kind):
    source = digits_run.checkpoint
    if kind == "huggingface":
        source = tmp_path / "hf"
        assert igpt("export", "--ckpt", digits_run.checkpoint, "--format", "huggingface", "--out", source)[0] == 0
    shape = {"n_layers": 3, "d_model": 32, "n_heads": 4, "vocab_size": 17, "resolution": 8}
    api.create_model("igpt-s", source, **shape)
    for name, (value, theirs) in {"vocab_size": (20, "17 .the colours of its palette."), "d_model": (16, 32),
                                  "n_layers": (2, 3), "n_heads": (2, 4)}.items():  # fmt: skip
        line = f"^pretrained: .*does not fit this model: its {name} is {theirs}, not {value}; make them equal$"
        with pytest.raises(api.UserError, match=line):
            api.create_model("igpt-s", source, **{**shape, name: value})
    few = np.linspace(-1, 1, 16 * 3, dtype=np.float32).reshape(16, 3)
    with pytest.raises(api.UserError, match=r"its vocab_size is 17 \(the colours of its palette\), not 16"):
        api.create_model("igpt-s", source, palette=few, **{k: v for k, v in shape.items() if k != "vocab_size"})


def test_class_names_are_in_the_checkpoint(digits_run, model):
    assert model.loaded.class_names == tuple("0123456789")
    assert model.class_names == ()
    assert repr(model) == "igpt.Model(Autoregressive, 3 layers, width 32, 8x8 pixels, 17 colours, on cpu)"
