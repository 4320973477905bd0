import itertools
import json
import pickle
import shutil
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from igpt.cli import main
from igpt.data import ShardReader, SplitOptions
from igpt.data.randomness import permuted
from igpt.data.shards.index import Index, Shard
from igpt.data.shards.kinds import ColorTokens
from igpt.system.errors import UserError
from igpt.testing import check_data_module
from igpt_datamodules import Digits, TokenShards
from igpt_datamodules.tokens import PermutedOrder
from tests.conftest import REPO, small_model

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The digits as tokens of their 17 levels, 300 a shard."""
    out = tmp_path_factory.mktemp("tokens") / "shards"
    palette = REPO / "palettes" / "digits.npy"
    command = [
        "tokenize",
        "--data",
        "Digits",
        "--palette",
        palette,
        "--out",
        out,
        "--shard_images",
        300,
        "--workers",
        1,
    ]
    assert main([str(word) for word in command]) == 0
    return out


def test_token_shards_keep_the_contract_of_every_data_module(shards):
    check_data_module(lambda: TokenShards(folder=str(shards), batch_size=32))
    check_data_module(lambda: TokenShards(folder=str(shards), batch_size=32, split=SplitOptions(labels_per_class=4)))


def test_images_labels_and_splits_are_those_of_the_data_that_were_tokenised(shards):
    data, digits = TokenShards(folder=str(shards)), Digits()
    assert (data.resolution, data.num_classes, data.class_names) == (8, 10, digits.class_names)
    for split in SPLITS:
        for (images, labels), (expected, known) in zip(data.loader(split), digits.loader(split), strict=False):
            count = min(len(images), len(expected))
            assert torch.equal(labels[:count], known[:count])
            assert (images[:count].int() - expected[:count].int()).abs().max() <= 1  # 17 levels, rounded differently
            break
        assert torch.equal(torch.as_tensor(data.images(split).labels), torch.as_tensor(digits.images(split).labels))


def test_training_takes_every_image_once_an_epoch_and_the_order_is_a_function_of_seed_and_epoch(shards):
    order = PermutedOrder(1294, batch_size=2, seed=0)
    first = list(order)
    order.start = 1294 // 2
    second = list(order)
    assert sorted(index for _, index in first) == list(range(1294))
    assert [epoch for epoch, _ in second] == [1] * 1294
    assert [index for _, index in first] != [index for _, index in second]
    sampler = TokenShards(folder=str(shards), batch_size=2).train_dataloader().sampler
    assert isinstance(sampler, PermutedOrder)
    assert list(sampler) == first


def test_the_order_of_many_images_does_not_depend_on_how_many_places_are_computed_at_once():
    count, batch = 10_007, 48
    whole = permuted(np.arange(count), count, (5, 0)).tolist()
    found = [index for _, index in PermutedOrder(count, batch, seed=5)]
    assert found == whole[: count // batch * batch]
    backwards = PermutedOrder(count, batch, seed=5)
    for start in (9_000, 4_080, 4_096, 0):
        assert backwards.images_at(0, start, start + batch) == whole[start : start + batch]


def test_processes_share_the_order_of_an_epoch_among_them():
    alone = list(PermutedOrder(96, batch_size=8, seed=3))
    shared = [list(PermutedOrder(96, batch_size=4, seed=3, world_size=2, rank=rank)) for rank in (0, 1)]
    together = [pair for step in range(12) for rank in (0, 1) for pair in shared[rank][4 * step : 4 * step + 4]]
    assert together == alone


def test_folding_validation_back_trains_on_both(shards):
    data = TokenShards(folder=str(shards), split=SplitOptions(fold_validation=True))
    assert [data.size(split) for split in SPLITS] == [1294 + 144, 144, 359]
    digits = Digits()
    expected = torch.cat([torch.as_tensor(digits.images(split).labels) for split in ("train", "val")])
    assert torch.equal(torch.as_tensor(data.images("train").labels), expected)


@pytest.fixture
def many(tmp_path):
    """100 million images of one pixel, black, in 1,000 shards that take no room on the disk."""
    shard = Shard("", 100_000, 1, 0, "")
    np.save(tmp_path / "header.npy", np.empty(0, dtype=shard.dtype(1)))
    header = (tmp_path / "header.npy").read_bytes().replace(b"(0,), }", b"(1,), }")
    size = len(header) + shard.dtype(1).itemsize
    shards = {split: [] for split in SPLITS}
    for split, count in (("train", 1_000), ("val", 1), ("test", 1)):
        for number in range(count):
            shards[split].append(Shard(f"{split}-{number:05d}.npy", 100_000, 1, size, "0" * 64))
            with open(tmp_path / shards[split][-1].file, "wb") as file:
                file.write(header)
                file.truncate(size)
    made = {split: tuple(found) for split, found in shards.items()}
    colors = np.array([[-1, -1, -1]], dtype=np.float32)
    kind = ColorTokens(colors, np.zeros((1, 3), dtype=np.uint8))
    Index(1, 0, (), kind, made, (), {}).write(tmp_path)
    return tmp_path


def test_training_on_100_million_images_starts_without_time_or_memory(many):
    tracemalloc.start()
    began = time.perf_counter()
    data = TokenShards(folder=str(many), batch_size=128)
    data.prepare_data()
    loader = data.train_dataloader()
    images, labels = next(iter(loader))
    order = list(itertools.islice(loader.sampler, 4096))
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.size("train") == 100_000_000
    assert images.shape == (128, 3, 1, 1)
    assert not images.any()
    assert not labels.any()
    assert len(set(order)) == 4096
    assert seconds < 5
    assert peak < 32 << 20  # a byte an image would be 95 MiB


def test_a_reader_goes_to_another_process_without_what_it_has_opened(shards):
    reader = ShardReader(shards, Index.read(shards), ("train",))
    images, labels = reader.images(list(range(len(reader))))
    sent = pickle.dumps(reader)
    assert len(sent) < 4096  # the tokens are 160 kB
    again, known = pickle.loads(sent).images(list(range(len(reader))))
    np.testing.assert_array_equal(again, images)
    np.testing.assert_array_equal(known, labels)


def test_loader_processes_give_the_same_batches(shards):
    alone, helped = (TokenShards(folder=str(shards), num_workers=count).train_dataloader() for count in (0, 2))
    for (images, labels), (others, known) in itertools.islice(zip(alone, helped, strict=True), 5):
        assert torch.equal(images, others)
        assert torch.equal(labels, known)


def complaint(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_not_whole_is_refused_at_the_start(shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "shards")
    path = folder / "val-00000.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x77")
    TokenShards(folder=str(folder)).prepare_data()
    assert "damaged" in complaint(TokenShards(folder=str(folder), verify=True).prepare_data)
    path.write_bytes(content[:-1])
    assert "bytes instead of" in complaint(TokenShards(folder=str(folder)).setup)
    (folder / "index.json").unlink()
    assert "has no index.json" in complaint(lambda: TokenShards(folder=str(folder)))


def test_tokens_beyond_the_palette_are_damage_that_names_the_shard(shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "shards")
    path = folder / "train-00001.npy"
    path.write_bytes(path.read_bytes()[:-2] + b"\xff\xff")
    images = TokenShards(folder=str(folder)).images("train")
    assert images[0][0].shape == (3, 8, 8)
    line = complaint(lambda: images.__getitems__([5, 599]))
    assert "train-00001.npy" in line
    assert "image 599" in line


def test_a_shard_of_another_shape_is_refused_when_it_is_opened(shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "shards")
    size = (folder / "test-00000.npy").stat().st_size
    (folder / "test-00000.npy").write_bytes(b"\x93NUMPY" + bytes(size - 6))
    assert "test-00000.npy" in complaint(lambda: TokenShards(folder=str(folder)).images("test")[0])


def config(home, palette, folder, name="tokens"):
    path = home / f"{name}.yaml"
    path.write_text(
        f"""{small_model(palette)}
data: {{class_path: igpt_datamodules.TokenShards, init_args: {{folder: {folder}, batch_size: 32}}}}
trainer:
  max_steps: 4
  val_check_interval: 4
  check_val_every_n_epoch: null
  log_every_n_steps: 1
  enable_progress_bar: false
  accelerator: cpu
  callbacks:
    class_path: igpt.callbacks.OnlineProbe
    init_args: {{every_n_steps: 4, train_images: 64, val_images: 32}}
samples: {{num: 2, completions: 2}}
checkpoint: {{every_n_train_steps: 20}}
"""
    )
    return path


@pytest.fixture(scope="module")
def own(digits_run, tmp_path_factory):
    """The digits as tokens of the palette of the run that many tests share."""
    out = tmp_path_factory.mktemp("own") / "shards"
    command = ["tokenize", "--data", "Digits", "--palette", digits_run.palette, "--out", out, "--workers", 1]
    assert main([str(word) for word in command]) == 0
    return out


def test_every_command_works_on_shards_as_on_the_images(digits_run, own, igpt, tmp_path):
    data = ["--data", "TokenShards", "--data.folder", own]
    results = []
    for name, options in (("tokens", data), ("images", [])):
        folder = tmp_path / name
        code, _, err = igpt("probe", "--ckpt", digits_run.checkpoint, "--layers", "0,3", "--out", folder, *options)
        assert code == 0, err
        results.append(json.loads((folder / "probe.json").read_text()))
    assert "layers" in str(results[0])
    assert scores(results[0])
    assert scores(results[0]) == scores(results[1])
    pictures = []
    for name, options in (("tokens", data), ("images", [])):
        out = tmp_path / f"{name}.png"
        code, _, err = igpt("sample", "--ckpt", digits_run.checkpoint, "--rows", 2, "--num", 1, "--out", out, *options)
        assert code == 0, err
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1]


def scores(report):
    """Accuracies of the layers, by any name; those of raw pixels differ, since shards hold palette colours."""
    kept = []

    def look(value):
        if isinstance(value, dict):
            if "layer" in value or "layers" in value:
                kept.append({key: one for key, one in value.items() if "accuracy" in key})
            for one in value.values():
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)

    look(report)
    return [one for one in kept if one]


def test_a_run_trains_on_shards_with_samples_and_probe_and_its_likelihood_is_that_of_the_images(
    digits_run, own, igpt, tmp_path
):
    path = config(tmp_path, digits_run.palette, own)
    code, _, err = igpt("fit", "--config", path, "--runs_dir", tmp_path)
    assert code == 0, err
    last = tmp_path / "tokens" / "checkpoints" / "last.ckpt"
    code, told, err = igpt("test", "--config", path, "--runs_dir", tmp_path, "--ckpt_path", last)
    assert code == 0, err
    image = tmp_path / "images.yaml"
    image.write_text(
        path.read_text().replace(
            f"igpt_datamodules.TokenShards, init_args: {{folder: {own}, ", "igpt_datamodules.Digits, init_args: {"
        )
    )
    code, expected, err = igpt("test", "--config", image, "--runs_dir", tmp_path, "--ckpt_path", last)
    assert code == 0, err
    lines = [[line for line in text.splitlines() if line.startswith("likelihood of 359")] for text in (told, expected)]
    assert len(lines[0]) == 1
    assert lines[0] == lines[1]


def test_shards_of_another_palette_are_refused_with_the_names_of_both(digits_run, shards, igpt, tmp_path):
    other = tmp_path / "other.npy"
    code, _, err = igpt("palette", "--data", "SamplePhotos", "--colors", 17, "--out", other)
    assert code == 0, err
    names = [Index.read(shards).tokens.sha256[:12], json.loads(other.with_suffix(".json").read_text())["sha256"][:12]]
    config(tmp_path, other, shards)
    code, _, err = igpt("fit", "--config", tmp_path / "tokens.yaml", "--runs_dir", tmp_path / "runs")
    assert (code, [line for line in err.splitlines() if line.startswith("igpt fit")]) == (2, err.splitlines()[-1:])
    for name in names:
        assert name in err
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_of_another_palette_is_refused_by_every_command(digits_run, shards, igpt, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "shards")
    index = Index.read(folder)
    colors = index.tokens.colors.copy()
    colors[3] += np.float32(0.01)
    replace(index, tokens=replace(index.tokens, colors=colors)).write(folder)
    path = config(tmp_path, "null", folder)
    data = ["--data", "TokenShards", "--data.folder", folder]
    for command in (
        ["validate", "--config", path, "--runs_dir", tmp_path, "--ckpt_path", digits_run.checkpoint],
        [
            "fit",
            "--config",
            path,
            "--runs_dir",
            tmp_path,
            "--ckpt_path",
            digits_run.checkpoint,
            "--trainer.max_steps",
            40,
        ],
        ["probe", "--ckpt", digits_run.checkpoint, "--out", tmp_path / "probe", *data],
        ["sample", "--ckpt", digits_run.checkpoint, "--rows", 1, "--out", tmp_path / "s.png", *data],
    ):
        code, _, err = igpt(*command)
        assert code == 2, err
        assert "the model has palette" in err.splitlines()[-1], err
