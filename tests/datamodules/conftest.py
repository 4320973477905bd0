"""CIFAR's own files, written by the test: pickled batches with the published names and sizes."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets


def write_batch(path: Path, count: int, classes: int, key: str, seed: int) -> str:
    rng = np.random.default_rng(seed)
    labels = [int(label) for label in rng.permutation(np.arange(count) % classes)]
    data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    path.write_bytes(pickle.dumps({"data": data, key: labels}, protocol=2))
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_meta(path: Path, key: str, names: list[str]) -> str:
    path.write_bytes(pickle.dumps({key: names}, protocol=2))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def cifar_files(tmp_path_factory):
    """A folder with both CIFARs at their full number of images, and the checksum of each file."""
    root = tmp_path_factory.mktemp("cifar")
    ten, hundred = root / "cifar-10-batches-py", root / "cifar-100-python"
    ten.mkdir()
    hundred.mkdir()
    files = {f"data_batch_{i}": i for i in range(1, 6)} | {"test_batch": 6}
    sums = {name: write_batch(ten / name, 10_000, 10, "labels", seed) for name, seed in files.items()}
    sums["batches.meta"] = write_meta(ten / "batches.meta", "label_names", [f"class{i}" for i in range(10)])
    sums["train"] = write_batch(hundred / "train", 50_000, 100, "fine_labels", 7)
    sums["test"] = write_batch(hundred / "test", 10_000, 100, "fine_labels", 8)
    sums["meta"] = write_meta(hundred / "meta", "fine_label_names", [f"fine{i}" for i in range(100)])
    return root, sums


@pytest.fixture
def cifar_root(cifar_files, monkeypatch):
    """That folder, for reading only; torchvision knows its files by their checksums."""
    root, sums = cifar_files
    for kind in (datasets.CIFAR10, datasets.CIFAR100):
        for part in ("train_list", "test_list"):
            names = [name for name, _ in vars(kind)[part]]
            monkeypatch.setattr(kind, part, [[name, sums[name]] for name in names])
        monkeypatch.setattr(kind, "meta", vars(kind)["meta"] | {"md5": sums[vars(kind)["meta"]["filename"]]})
    return root
