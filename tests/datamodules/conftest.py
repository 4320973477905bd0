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


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """A folder with both CIFARs at their full number of images; torchvision checks these files' checksums."""
    ten, hundred = tmp_path / "cifar-10-batches-py", tmp_path / "cifar-100-python"
    ten.mkdir()
    hundred.mkdir()
    files = {f"data_batch_{i}": i for i in range(1, 6)} | {"test_batch": 6}
    sums = {name: write_batch(ten / name, 10_000, 10, "labels", seed) for name, seed in files.items()}
    meta = write_meta(ten / "batches.meta", "label_names", [f"class{i}" for i in range(10)])
    monkeypatch.setattr(
        datasets.CIFAR10, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)]
    )
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta})
    train = write_batch(hundred / "train", 50_000, 100, "fine_labels", 7)
    test = write_batch(hundred / "test", 10_000, 100, "fine_labels", 8)
    meta = write_meta(hundred / "meta", "fine_label_names", [f"fine{i}" for i in range(100)])
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", train]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", test]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": meta})
    return tmp_path
