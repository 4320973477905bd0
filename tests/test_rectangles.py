"""Pictures that are not square: rows and columns from the files to the report, and squares as they were."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import igpt as api
from igpt.cli import main
from igpt.data import SPLITS, centre_crop_box, open_picture, rng_of, shape_of
from igpt.model import FeatureOptions, inverse_order, pixel_order, pooling, resize_positions
from igpt.modules.loading import load
from igpt.system.errors import UserError
from igpt.testing import check_data_module
from igpt_datamodules import Digits, ImageFolder, SamplePhotos, TokenShards
from igpt_datamodules.augment import pad_crop_flip, random_crop_box, resize_all
from tests.datamodules.test_augment import drawn_by_hand, keys

ROWS, COLUMNS = SHAPE = (6, 8)
ORDERS = ["raster", "column", "spiral", "random"]
SHAPES = [(1, 5), (2, 3), (3, 2), (6, 8), (7, 4)]
EXACT = ["--precision", "32-true", "--accelerator", "cpu"]


def pixels(number):
    """Six rows and eight columns of 16 greys, none of whose rows equals a column; uint8 (6, 8, 3)."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    return np.repeat(((y * 3 + x * 5 + number) % 16 * 17).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two classes of pictures, a palette and a config of `igpt init`, and two steps of AR and of BERT on them."""
    folder = tmp_path_factory.mktemp("rectangles")
    for number in range(60):
        path = folder / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(number)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "pets", "--resolution", "6", "8", "--colors", "16", "--batch_size", "8"]) == 0
        for objective in ("ar", "bert"):
            content = yaml.safe_load(Path("pets.yaml").read_text())
            assert content["data"]["init_args"]["resolution"] == [6, 8]
            shape = {"n_layers": 2, "d_model": 16, "n_heads": 2}
            if objective == "bert":
                content["model"]["class_path"] = "igpt.modules.BERT"
                shape["sos"] = False
            content["model"]["init_args"]["transformer"] = shape
            content["trainer"] |= {
                "max_steps": 2,
                "val_check_interval": 2,
                "accelerator": "cpu",
                "precision": "32-true",
            }
            content["samples"] = {"num": 2, "completions": 2}
            Path(f"{objective}.yaml").write_text(yaml.safe_dump(content))
            assert main(["fit", "--config", f"{objective}.yaml"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _here(request, monkeypatch):
    if "home" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("home"))


def checkpoint(name):
    return f"runs/{name}/checkpoints/last.ckpt"


def files(count=3):
    return sorted(map(str, Path("pets/cat").glob("*.png")))[:count]


def given():
    return np.stack([pixels(int(Path(file).stem)) for file in files()])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_order_visits_every_pixel_once(order, shape):
    assert sorted(pixel_order(order, shape).tolist()) == list(range(shape[0] * shape[1]))


def test_the_orders_of_two_rows_and_three_columns():
    assert pixel_order("raster", (2, 3)).tolist() == [0, 1, 2, 3, 4, 5]
    assert pixel_order("column", (2, 3)).tolist() == [0, 3, 1, 4, 2, 5]
    assert pixel_order("spiral", (2, 3)).tolist() == [0, 1, 2, 5, 4, 3]
    assert pixel_order("spiral", (3, 2)).tolist() == [0, 1, 3, 5, 4, 2]
    assert pixel_order("random", (2, 6)).tolist() != pixel_order("random", (6, 2)).tolist()


def test_the_random_order_of_a_square_is_that_of_earlier_versions():
    assert pixel_order("random", 3).tolist() == pixel_order("random", (3, 3)).tolist() == [4, 1, 5, 6, 0, 2, 3, 8, 7]


@pytest.mark.parametrize(("old", "new"), [((3, 6), (6, 12)), ((6, 8), (8, 6)), ((4, 9), (6, 6))])
def test_resized_positions_follow_rows_and_columns(old, new):
    """A ramp down the rows stays one, and so does one along the columns."""
    orders = pixel_order("column", old), pixel_order("spiral", new)
    y, x = np.mgrid[0 : old[0], 0 : old[1]]
    ramps = torch.from_numpy(np.stack([y.ravel(), x.ravel()], 1)).float()[orders[0]]
    found = resize_positions(ramps, *orders, old, new)[inverse_order(orders[1])].unflatten(0, new)
    down, along = found.unbind(2)
    assert (down.diff(dim=0) > 0).all()
    assert torch.allclose(down, down[:, :1].expand(new), atol=1e-4)
    assert (along.diff(dim=1) > 0).all()
    assert torch.allclose(along, along[:1].expand(new), atol=1e-4)


@pytest.mark.parametrize(("order", "shape"), list(product(ORDERS, [(6, 8), (7, 4)])))
@pytest.mark.parametrize("grid", [2, 3])
def test_features_of_a_grid_are_means_over_cells_of_rows_and_columns(order, shape, grid):
    values = torch.rand(shape)
    sequence = values.flatten()[pixel_order(order, shape)]
    edges = [[-(-side * cell // grid) for cell in range(grid + 1)] for side in shape]
    expected = [
        values[edges[0][row] : edges[0][row + 1], edges[1][column] : edges[1][column + 1]].mean()
        for row in range(grid)
        for column in range(grid)
    ]
    torch.testing.assert_close(pooling(pixel_order(order, shape), grid, shape) @ sequence, torch.stack(expected))


def test_a_grid_is_at_most_the_shorter_side():
    FeatureOptions(grid=6).check(SHAPE, True)
    with pytest.raises(UserError, match="--grid 7 must lie between 1 and 6"):
        FeatureOptions(grid=7).check(SHAPE, True)


@pytest.mark.parametrize("wrong", [0, [6], [6, 8, 3], [0, 8], [6, -8], "68", [6, 8.0], True])
def test_what_is_no_resolution_is_one_line(wrong):
    with pytest.raises(UserError, match=r"^resolution .* must be"):
        shape_of(wrong)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (64, 48), (48, 64), (333, 250)])
@pytest.mark.parametrize("shape", SHAPES)
def test_crops_lie_inside_the_picture_and_have_the_aspect_that_is_asked_for(size, shape):
    whole = centre_crop_box(size, shape)
    for box in (whole, random_crop_box(size, rng_of(1), shape)):
        assert 0 <= box[0] < box[2] <= size[0] + 1e-4
        assert 0 <= box[1] < box[3] <= size[1] + 1e-4
        if min(size) > 40:  # the longer side of the picture is rounded, as in the paper's order of steps
            assert (box[2] - box[0]) / (box[3] - box[1]) == pytest.approx(shape[1] / shape[0], rel=0.01)
    if min(size) > 40:
        assert max((whole[2] - whole[0]) / size[0], (whole[3] - whole[1]) / size[1]) == pytest.approx(1)
        assert whole[0] + whole[2] == pytest.approx(size[0], abs=2)
        assert whole[1] + whole[3] == pytest.approx(size[1], abs=2)


def test_a_picture_of_the_right_aspect_is_read_whole(home):
    image = open_picture("pets/cat/0.png", SHAPE)
    assert torch.equal(image, torch.from_numpy(pixels(0)).permute(2, 0, 1))
    y, x = np.mgrid[0:300, 0:400]
    Image.fromarray(np.stack([y // 2, x // 2, y], -1).astype(np.uint8)).save("large.png")
    down, along, _ = open_picture("large.png", SHAPE).float()
    assert torch.allclose(down, 25.0 * torch.arange(ROWS)[:, None].expand(SHAPE) + 12, atol=3)
    assert torch.allclose(along, 25.0 * torch.arange(COLUMNS).expand(SHAPE) + 12, atol=3)


def test_padding_moves_rows_by_an_eighth_of_the_rows_and_columns_by_one_of_the_columns():
    images = torch.randint(256, (40, 3, 16, 32), generator=rng_of(3)).to(torch.uint8)
    found = pad_crop_flip(images, keys(40))
    for index in range(40):
        top, left, mirror = drawn_by_hand(5, 2, index, [2 * 2 + 1, 2 * 4 + 1, 2])
        padded = np.pad(images[index].numpy(), ((0, 0), (2, 2), (4, 4)), mode="reflect")
        crop = padded[:, top : top + 16, left : left + 32]
        np.testing.assert_array_equal(found[index].numpy(), crop[:, :, ::-1] if mirror else crop)


def test_images_of_a_fixed_size_are_cropped_to_the_aspect():
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(1, 3, 1, 1)
    assert torch.equal(resize_all(images, (4, 8)), images[:, :, 2:6])
    assert torch.equal(resize_all(images, (8, 4)), images[:, :, :, 2:6])
    assert resize_all(images, (3, 12)).shape == (1, 3, 3, 12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImageFolder("pets", SHAPE, 8),
        lambda: Digits(resolution=(4, 8)),
        lambda: SamplePhotos((16, 32)),
    ],
)
def test_data_modules_keep_the_contract(home, make):
    check_data_module(make)


def test_the_plain_number_and_two_equal_sides_are_the_same_data(home):
    plain, equal = (ImageFolder("pets", resolution=resolution) for resolution in (8, [8, 8]))
    assert equal.resolution == plain.resolution == 8
    assert plain.spec() == equal.spec()
    assert plain.spec()["init_args"]["resolution"] == plain.identity()["resolution"] == 8
    other = ImageFolder("pets", resolution=[6, 8])
    assert (other.resolution, other.shape) == ((6, 8), (6, 8))
    assert other.spec()["init_args"]["resolution"] == other.identity()["resolution"] == [6, 8]


@pytest.mark.parametrize("name", ["ar", "bert"])
def test_a_model_knows_rows_and_columns_and_so_do_its_pictures(home, igpt, name):
    config = yaml.safe_load(Path(f"runs/{name}/config.yaml").read_text())["model"]["init_args"]["transformer"]
    assert (config["n_positions"], config["grid"]) == (48, [6, 8])
    model = api.load(f"runs/{name}", device="cpu")
    assert (model.resolution, model.shape) == (SHAPE, SHAPE)
    assert "6x8 pixels" in repr(model)
    images = given()
    assert (model.palette.decode(model.palette.encode(images)) == images).all()  # 16 colours are kept as they are
    assert model.sample(3).shape == (3, ROWS, COLUMNS, 3)
    assert model.nll(images, per_pixel=True).shape == (3, ROWS, COLUMNS)
    assert model.features(images, 1, grid=2)[1].shape == (3, 4 * 16)
    assert model.forward_features(torch.from_numpy(images).permute(0, 3, 1, 2)).shape == (1, 3, 16)
    for words, shape in ((["--num", 4], (4, 48)), (["--complete", *files(), "--num", 2], (3, 2, 48))):
        code, _, err = igpt("sample", "--ckpt", name, *words, "--out", f"{name}.png", *EXACT)
        assert code == 0, err
        assert np.load(f"{name}.npy").shape == shape
    code, _, err = igpt("surprise", *files(), "--ckpt", name, "--out", f"{name}_s.png", *EXACT)
    assert code == 0, err
    nats = np.load(f"{name}_s.npy")
    assert nats.shape == (3, ROWS, COLUMNS)
    np.testing.assert_allclose(nats, model.nll(files(), per_pixel=True), rtol=1e-5)


@pytest.mark.parametrize("name", ["ar", "bert"])
def test_a_region_at_the_right_edge_keeps_its_place(home, igpt, name):
    region = np.zeros(SHAPE, bool)
    region[1:3, 6:] = True
    Image.fromarray(region.astype(np.uint8) * 255).save("mask.png")
    words = ["--complete", *files(), "--mask", "mask.png", "--num", 3, "--temperature", 30]
    code, _, err = igpt("sample", "--ckpt", name, *words, "--out", "right.png", *EXACT)
    assert code == 0, err
    model = api.load(f"runs/{name}", device="cpu")
    drawn, tokens = np.load("right.npy").reshape(3, 3, *SHAPE), model.palette.encode(files()).reshape(3, 1, *SHAPE)
    assert ((drawn != tokens).any((0, 1)) == region).all()
    done = model.complete(files(), num=3, region=region, temperature=30)
    assert ((done != given()[:, None]).any((0, 1, 4)) == region).all()


def test_the_upper_rows_are_kept(home):
    model = api.load("runs/ar", device="cpu")
    done = model.complete(files(), keep=0.3, num=2, temperature=30)
    assert (done[:, :, :2] == given()[:, None, :2]).all()
    assert (done[:, :, 2:] != given()[:, None, 2:]).any((0, 1, 4)).all()


@pytest.mark.parametrize("name", ["ar", "bert"])
def test_a_probe_of_a_grid_of_cells(home, igpt, name):
    out = Path(f"probe_{name}")
    code, _, err = igpt(
        "probe", "--ckpt", name, "--method", "knn", "--grid", 2, "--out", out, "--layers", "1,2", *EXACT
    )
    assert code == 0, err
    assert json.loads((out / "probe.json").read_text())["data"]["init_args"]["resolution"] == [6, 8]
    assert igpt("report", f"runs/{name}", "--out", "report.html")[0] == 0
    assert "ImageFolder 6x8" in Path("report.html").read_text()


@pytest.mark.parametrize("name", ["ar", "bert"])
def test_a_run_goes_on_and_ends_in_the_same_bits(home, igpt, name):
    words = ["fit", "--config", f"{name}.yaml", "--trainer.max_steps", 4, "--checkpoint.every_n_train_steps", 2]
    assert igpt(*words, "--name", f"{name}_whole")[0] == 0
    half = f"runs/{name}_whole/checkpoints/step=0000002.ckpt"
    code, _, err = igpt(*words, "--name", f"{name}_rest", "--ckpt_path", half)
    assert code == 0, err
    one, other = (load(checkpoint(f"{name}_{end}")).module.state_dict() for end in ("whole", "rest"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_shards_are_the_pictures_and_train_a_model(home, igpt):
    palette = "palettes/pets.npy"
    words = ["--data", "ImageFolder", "--data.root", "pets", "--data.resolution", "[6, 8]", "--data.augment", "false"]
    code, _, err = igpt("tokenize", *words, "--palette", palette, "--out", "shards")
    assert code == 0, err
    assert json.loads(Path("shards/index.json").read_text())["resolution"] == [6, 8]
    data, shards = ImageFolder("pets", SHAPE, augment=False), TokenShards("shards")
    assert shards.shape == SHAPE
    for split in SPLITS:
        for index in range(data.size(split)):
            assert torch.equal(shards.images(split)[index][0], data.images(split)[index][0])
    options = ["--data", "TokenShards", "--data.init_args.folder", "shards", "--data.init_args.batch_size", 8]
    content = yaml.safe_load(Path("ar.yaml").read_text())
    del content["data"]
    Path("shards.yaml").write_text(yaml.safe_dump(content))
    code, _, err = igpt("fit", "--config", "shards.yaml", *options)
    assert code == 0, err
    assert load(checkpoint("shards")).module.shape == SHAPE
    code, _, err = igpt("check", *words)
    assert code == 0, err


def test_weights_of_one_rectangle_start_another(home, igpt):
    words = ["--data.init_args.resolution", "[8, 6]", "--model.init_args.start_from", checkpoint("ar")]
    code, _, err = igpt("fit", "--config", "ar.yaml", "--name", "turned", *words)
    assert code == 0, err
    assert load(checkpoint("turned")).module.shape == (8, 6)
    content = yaml.safe_load(Path("ar.yaml").read_text())
    content["model"] = {"class_path": "igpt.modules.Joint", "init_args": {"pretrained": checkpoint("ar")}}
    Path("joint.yaml").write_text(yaml.safe_dump(content))
    code, _, err = igpt("fit", "--config", "joint.yaml")
    assert code == 0, err
    assert api.load("runs/joint").predict(files()).probs.shape == (3, 2)
    larger = api.create_model("igpt-s", "runs/ar", n_layers=2, d_model=16, n_heads=2, vocab_size=16, resolution=(9, 16))
    assert larger.sample(1).shape == (1, 9, 16, 3)


def test_what_does_not_fit_is_one_line(home, igpt):
    for words, about in (
        (["probe", "--ckpt", "ar", "--data", "Digits", "--method", "knn"], ["8x8", "6x8"]),
        (
            ["validate", "--config", "ar.yaml", "--ckpt", "ar", "--data.init_args.resolution", "[8, 6]"],
            ["(8, 6)", "(6, 8)"],
        ),
        (["fit", "--config", "ar.yaml", "--data.init_args.resolution", "[6, 8, 3]"], ["resolution"]),
        (["fit", "--config", "ar.yaml", "--data.init_args.resolution", "[0, 8]"], ["resolution"]),
        (["fit", "--config", "ar.yaml", "--model.init_args.transformer.n_positions", "48"], ["grid [6, 8]"]),
        (["init", "pets", "--out", "x.yaml", "--resolution", "6", "8", "9"], ["resolution"]),
        (["export", "--ckpt", "ar", "--out", "hf", "--format", "huggingface"], ["6x8"]),
    ):
        code, _, err = igpt(*words)
        assert (code, len(err.splitlines())) == (2, 1), (words, err)
        assert all(word in err for word in about), err
