"""Loader processes that are spawned and not forked, as on macOS and Windows, give the batches of this process."""

import tarfile
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from igpt.data import TrainingImages, fetch
from igpt_datamodules import (
    CIFAR10,
    CIFAR100,
    Digits,
    HuggingFace,
    ImageFolder,
    ImageNet,
    SamplePhotos,
    TokenShards,
    TorchVision,
    WebImages,
)
from tests.datamodules.pictures import class_tree
from tests.datamodules.test_hub import cells, offline, write  # noqa: F401
from tests.datamodules.test_stl import stl, stl_files  # noqa: F401
from tests.datamodules.test_tokens import shards  # noqa: F401
from tests.datamodules.vision_files import Files, dtd

BATCHES = 2


class Parts(Dataset):
    """Several data sets, so that one process, which takes seconds to start, can show them all."""

    def __init__(self, parts):
        self.parts = parts

    def __getitems__(self, asked):
        """Some images of one data set."""
        return fetch(self.parts[asked[0][0]], [index for _, index in asked])


@pytest.fixture
def modules(tmp_path, offline, cifar_root, stl, shards):  # noqa: F811
    for name in ("tree/train", "tree/test", "imagenet/train", "imagenet/val", "web"):
        class_tree(tmp_path / name, {"cat": 40, "dog": 30})
    with tarfile.open(tmp_path / "web" / "0.tar", "w") as tar:
        tar.add(tmp_path / "web" / "cat", "inside")
    write(tmp_path / "rows.parquet", image=cells(), label=["a", "b"] * 20)
    dtd(Files(tmp_path / "vision"))
    return [
        TorchVision("DTD", root=str(tmp_path / "vision"), download=False, resolution=8, batch_size=4, augment=True),
        HuggingFace(str(tmp_path / "rows.parquet"), resolution=8, batch_size=4, augment=True),
        Digits(),
        CIFAR10(root=str(cifar_root), download=False, resolution=8, augment=True),
        CIFAR100(root=str(cifar_root), download=False, resolution=8),
        stl(resolution=8, augment=True),
        stl(resolution=8, use_unlabelled=True),
        ImageFolder(root=str(tmp_path / "tree"), batch_size=8),
        ImageNet(root=str(tmp_path / "imagenet"), batch_size=8),
        WebImages(root=str(tmp_path / "web"), batch_size=8),
        SamplePhotos(),
        TokenShards(folder=str(shards)),
    ]


def test_every_built_in_data_module_is_loaded_by_processes_that_are_spawned(modules):
    parts, expected, asked = [], [], []
    for data in modules:
        data.prepare_data()
        data.num_workers = 1
        real = data.train_dataloader(), data.loader("val")
        data.num_workers = 0
        for loader, here in zip(real, (data.train_dataloader(), data.loader("val")), strict=True):
            expected += islice(here, BATCHES)
            asked += [[(len(parts), index) for index in batch] for batch in islice(loader.batch_sampler, BATCHES)]
            parts.append(loader.dataset)
    assert {type(part) for part in parts[::2]} == {TrainingImages}
    how = {"collate_fn": loader.collate_fn, "worker_init_fn": loader.worker_init_fn}
    spawned = DataLoader(
        Parts(parts), batch_sampler=asked, num_workers=1, multiprocessing_context="spawn", timeout=120, **how
    )
    for (images, labels), (others, known) in zip(spawned, expected, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, known)
