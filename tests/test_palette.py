import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from igpt.palette.counting import ColorCounts, merge_cells
from igpt.palette.palette import Palette, fit_palette, palette_quality
from igpt.system.errors import UserError
from tests.conftest import REPO


def random_palette(k, seed=0):
    return Palette(torch.rand(k, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1)


def random_colors(count, seed=1):
    return torch.randint(256, (count, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def brute_force(palette, rgb):
    colors = palette.colors.numpy().astype(np.float64) * 127.5 + 127.5
    parts = [
        ((part[:, None].astype(np.float64) - colors) ** 2).sum(-1).argmin(1) for part in np.array_split(rgb.numpy(), 50)
    ]
    return np.concatenate(parts)


def counted(pixels):
    """Counts of an array of colours (N, 3)."""
    counts = ColorCounts()
    counts.add(torch.as_tensor(pixels, dtype=torch.uint8).T[None, :, None, :])
    return counts


@pytest.mark.parametrize("k", [1, 2, 512])
def test_the_table_equals_brute_force_on_100_000_random_colors(k):
    palette, rgb = random_palette(k), random_colors(100_000)
    np.testing.assert_array_equal(palette.nearest(rgb).numpy(), brute_force(palette, rgb))


def crowded_palette():
    """A few colours anywhere, and more within some levels of one another than the table's blocks list."""
    generator = torch.Generator().manual_seed(5)
    close = 100 + 9 * torch.rand(40, 3, generator=generator)
    return Palette(torch.cat([close / 127.5 - 1, random_palette(24, seed=6).colors]))


def test_where_many_colors_are_close_the_table_equals_brute_force_too():
    palette = crowded_palette()
    near = torch.cartesian_prod(*[torch.arange(96, 114, dtype=torch.uint8)] * 3)
    rgb = torch.cat([near, random_colors(20_000)])
    np.testing.assert_array_equal(palette.nearest(rgb).numpy(), brute_force(palette, rgb))


def test_a_color_that_is_not_among_the_16_nearest_to_a_block_may_be_the_nearest_to_its_corner():
    left = torch.tensor([98.5, 101.5, 101.5]) + 0.01 * torch.rand(16, 3, generator=torch.Generator().manual_seed(0))
    right = torch.tensor([[104.7, 101.5, 101.5]])  # farther from the middle of 100..103 than each of the others
    palette = Palette(torch.cat([left, right]) / 127.5 - 1)
    assert palette.nearest(torch.tensor([[103, 101, 101]], dtype=torch.uint8)).tolist() == [16]


@pytest.mark.parametrize("shape", [(3, 4), (3,), (0, 3)])
def test_colors_of_another_shape_are_no_palette(shape):
    with pytest.raises(UserError, match=r"not \(k, 3\)"):
        Palette(torch.zeros(shape))


def test_the_quality_of_a_palette_is_that_of_its_nearest_colors_over_all_pixels():
    palette, some = crowded_palette(), random_colors(500)
    rgb = torch.cat([some, some[:40], some[:40]])
    exact = palette.colors.numpy().astype(np.float64) * 127.5 + 127.5
    token = brute_force(palette, rgb)
    mse = ((rgb.numpy() - exact[token]) ** 2).sum(1).mean()
    quality, shares = palette_quality(palette, counted(rgb))
    np.testing.assert_allclose(shares, np.bincount(token, minlength=64) / 580)
    assert (quality["pixels"], quality["unique_colors"]) == (580, 500)
    assert quality["mse"] == pytest.approx(mse)
    assert quality["psnr"] == pytest.approx(10 * math.log10(255**2 / (mse / 3)))
    assert quality["unused_colors"] == 64 - len(np.unique(token)) > 0


def test_a_palette_to_be_filled_is_blank_until_a_state_dict_comes_and_builds_its_table_at_the_first_use():
    palette = Palette.blank(9)
    assert (palette.k, palette.is_blank, palette.has_table) == (9, True, False)
    palette.load_state_dict(random_palette(9, seed=4).state_dict())
    assert (palette.is_blank, palette.has_table) == (False, False)
    palette.nearest(random_colors(1))
    assert palette.has_table
    palette.load_state_dict(random_palette(9, seed=3).state_dict())
    assert not palette.has_table


def test_a_number_of_colors_that_no_palette_has_is_refused():
    for colors in (0, -1, (1 << 15) + 1):
        with pytest.raises(UserError, match=f"--colors {colors} is out of range"):
            fit_palette(counted([[0, 0, 0]]), colors)
    with pytest.raises(UserError, match="have only 1 different colours"):
        fit_palette(counted([[0, 0, 0]]), 1 << 15)


def test_ties_go_to_the_lower_index():
    red, green = [-0.5, -1.0, -1.0], [-1.0, -0.5, -1.0]  # black lies exactly as far from both
    black = torch.zeros(1, 3, dtype=torch.uint8)
    for colors in ([red, green], [green, red], [[1.0, 1, 1], red, red, green]):
        palette = Palette(torch.tensor(colors))
        assert palette.nearest(black).item() == (1 if len(colors) == 4 else 0)


def test_decoding_an_encoded_image_gives_each_pixel_its_nearest_palette_color():
    palette = random_palette(32)
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    decoded = palette.decode(palette.encode(images))
    flat = images.permute(0, 2, 3, 1).reshape(-1, 3)
    expected = palette.rgb()[torch.from_numpy(brute_force(palette, flat))].view(5, 8, 8, 3).permute(0, 3, 1, 2)
    assert torch.equal(decoded, expected)


def test_tokens_are_in_raster_order():
    palette = Palette(torch.tensor([[-1.0, -1, -1], [1, 1, 1], [1, -1, -1], [-1, 1, -1]]))
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    image[0, :, 0, 1] = 255
    image[0, 0, 1, 0] = 255
    image[0, 1, 1, 1] = 255
    assert palette.encode(image).tolist() == [[0, 1, 2, 3]]


def test_the_file_is_the_released_format_and_comes_back_the_same(tmp_path):
    palette = random_palette(17)
    palette.save(tmp_path / "p.npy")
    array = np.load(tmp_path / "p.npy")
    assert array.dtype == np.float32
    assert array.shape == (17, 3)
    assert torch.equal(Palette.load(tmp_path / "p.npy").colors, palette.colors)
    np.testing.assert_array_equal(palette.rgb().numpy(), np.rint(127.5 * (array + 1)).astype(np.uint8))


def test_loading_a_state_dict_brings_its_own_table():
    one, other, rgb = random_palette(9, seed=3), random_palette(9, seed=4), random_colors(1000)
    expected = other.nearest(rgb)
    assert not torch.equal(one.nearest(rgb), expected)
    one.load_state_dict(other.state_dict())
    assert torch.equal(one.nearest(rgb), expected)


def test_as_many_colors_as_occur_is_lossless():
    counts = counted(random_colors(40))
    palette = fit_palette(counts, counts.unique())
    quality, _ = palette_quality(palette, counts)
    assert quality["mse"] == pytest.approx(0, abs=1e-6)
    assert quality["psnr"] is None
    assert quality["unused_colors"] == 0


def test_fewer_different_colors_than_k_is_an_error_that_counts_them():
    with pytest.raises(UserError, match="only 3 different colours"):
        fit_palette(counted([[0, 0, 0], [9, 9, 9], [1, 2, 3], [9, 9, 9]]), 4)


@pytest.fixture(scope="module")
def photos():
    from sklearn.datasets import load_sample_images

    return counted(np.concatenate([image.reshape(-1, 3) for image in load_sample_images().images]))


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
def test_the_sample_photos_reach_a_mean_squared_error_of_30_5_at_512_colors(photos, seed):
    quality, _ = palette_quality(fit_palette(photos, 512, seed), photos)
    assert quality["pixels"] == 546_560
    assert quality["mse"] <= 30.5
    assert quality["psnr"] == pytest.approx(10 * math.log10(255**2 / (quality["mse"] / 3)))


def test_the_same_seed_gives_the_same_palette_whatever_the_threads(photos):
    import faiss

    before = faiss.omp_get_max_threads()
    results = []
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        results.append(fit_palette(photos, 64, seed=7).colors)
    faiss.omp_set_num_threads(before)
    assert torch.equal(*results)
    assert not torch.equal(results[0], fit_palette(photos, 64, seed=8).colors)


def test_weights_count_as_repeated_pixels():
    pixels = np.array([[10, 10, 10]] * 30 + [[20, 10, 10]] + [[200, 0, 0]] * 5, dtype=np.uint8)
    rgb = fit_palette(counted(pixels), 2).rgb()
    assert sorted(rgb.tolist()) == [[10, 10, 10], [200, 0, 0]]


def test_one_color_is_the_mean_of_all_pixels():
    pixels = random_colors(300).numpy()
    mean = fit_palette(counted(pixels), 1).colors.numpy() * 127.5 + 127.5
    np.testing.assert_allclose(mean, pixels.astype(np.float64).mean(0, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("side", [2, 4])
def test_merging_cells_keeps_total_weight_and_mean(side):
    counts = counted(random_colors(20_000))
    colors, weights = (np.concatenate(parts) for parts in zip(*counts.chunks(), strict=True))
    points, mass = merge_cells(counts.counts, side)
    assert len(points) == len(np.unique(colors.astype(np.int64) // side, axis=0))
    assert mass.sum() == weights.sum() == 20_000
    np.testing.assert_allclose(mass @ points, weights @ colors.astype(np.float64), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.slow
def test_counting_and_clustering_11_million_different_colors_stays_under_1_gib(tmp_path):
    """The whole process, Lightning and torch included, on 20 million pixels of noise. Slow: the bounds of memory.

    VmHWM, since `ru_maxrss` begins with what the process that started it holds.
    """
    script = tmp_path / "noise.py"
    script.write_text(
        """
import torch
from igpt.commands.before.palette import palette
from igpt.data import ImageDataModule, LabelledImages

class Noise(LabelledImages):
    def __init__(self, count):
        self.labels = torch.zeros(count, dtype=torch.int64)
    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=generator), 0

class NoiseData(ImageDataModule):
    def load(self):
        return {"train": Noise(22_000), "test": Noise(10)}

palette(NoiseData(), out="noise.npy", colors=512)
print("peak", next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "noise.json").read_text())
    assert report["unique_colors"] > 11_000_000
    assert int(done.stdout.split()[-1]) < 1024 * 1024


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4), np.float32), "shape"),
        (np.zeros((0, 3), np.float32), "shape"),
        (np.full((4, 3), 2.0, np.float32), "outside"),
        (np.full((4, 3), np.nan, np.float32), "outside"),
        (np.zeros((4, 3), np.int64), "float array"),
    ],
)
def test_a_file_that_holds_no_palette_is_refused_by_name(tmp_path, array, words):
    np.save(tmp_path / "wrong.npy", array)
    with pytest.raises(UserError, match=words) as error:
        Palette.load(tmp_path / "wrong.npy")
    assert "wrong.npy" in str(error.value)


def test_the_command_writes_the_same_bytes_twice_and_true_figures(digits_run, igpt, tmp_path):
    for name in ("a", "b"):
        code, out, _ = igpt("palette", "--data", "SamplePhotos", "--colors", 64, "--out", tmp_path / f"{name}.npy")
        assert code == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    report = json.loads((tmp_path / "a.json").read_text())
    palette = Palette.load(tmp_path / "a.npy")
    assert report["k"] == 64
    assert report["sha256"] == palette.sha256
    assert report["seed"] == 0
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert f"{report['mse']:.2f}" in out


@pytest.mark.parametrize("name", ["p.npy", "p.json", "p.png"])
def test_the_command_writes_over_its_own_files_and_over_no_others(igpt, tmp_path, name):
    command = ["palette", "--data", "Digits", "--colors", 17, "--out", tmp_path / "p.npy"]
    for _ in range(2):
        assert igpt(*command)[0] == 0
    if name == "p.npy":
        Palette(torch.zeros(17, 3)).save(tmp_path / name)  # another one under the name, which the figures do not know
    else:
        for path in tmp_path.iterdir():
            path.unlink()
        (tmp_path / name).write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, _, err = igpt(*command)
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"{name} is not of this command" in err
    assert "--out" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_palette_that_comes_with_the_project_is_made_again_over_itself_with_the_same_bytes(igpt, tmp_path):
    for name in ("digits.npy", "digits.json"):
        shutil.copy(REPO / "palettes" / name, tmp_path)
    before = (tmp_path / "digits.npy").read_bytes()
    code, _, err = igpt("palette", "--data", "Digits", "--colors", 17, "--out", tmp_path / "digits.npy")
    assert code == 0, err
    assert (tmp_path / "digits.npy").read_bytes() == before
