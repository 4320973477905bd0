"""Layer features on disk: larger than memory, reused by the next probe, and never half trusted.

A store is a folder: for each split `SPLIT_features.npy (L, N, D)` and `SPLIT_labels.npy (N,)`, which NumPy opens as
they are, and `manifest.json`, which says what they are features of, with a checksum of each file and one of its own.
The folder appears under its name only when it is whole.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from igpt.system import UserError, atomic_folder, check_own, digest_of, sha256_of

FeatureType = Literal["float16", "float32"]
FORMAT = 1
FILES = ("manifest.json", "*_features.npy", "*_labels.npy")  # of a store
AT_ONCE = 2**29  # bytes of float32 features of one split that a probe holds in memory, if it can take layers in turn


class StoreWriter:
    """Writes a store batch by batch; memory does not depend on the number of images.

    Used as a context manager: the store stands under its name only after a clean exit.

    Args:
        folder: of the store; one that is there is replaced, but nothing else.
        identity: plain data that say what these are features of.
        layers: names of the L layers.
        images: number N of images of each split.
        dtype: of the numbers on disk.
        option: that names the folder, or a folder that it lies in.

    Raises:
        UserError: on entering, there is something in the folder that is no store's.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        layers: list[int],
        images: Mapping[str, int],
        dtype: FeatureType,
        option: str = "--store",
    ) -> None:
        self.folder, self.identity, self.layers, self.dtype = folder, identity, layers, dtype
        self.images: dict[str, int] = dict(images)
        self.option = option
        self.width = 0
        self._labels: dict[str, list[np.ndarray]] = {name: [] for name in images}
        self._done = dict.fromkeys(images, 0)
        self._files: dict[str, tuple[BufferedRandom, int]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "StoreWriter":
        if self.folder.is_dir():
            check_own(self.folder, lambda folder: bool(read_manifest(folder)), FILES, self.option)
        self._partial = self._stack.enter_context(atomic_folder(self.folder))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            with self._stack, self._explained():
                self._finish()
        else:
            self._stack.__exit__(kind, error, trace)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A full disk as one line."""
        try:
            yield
        except OSError as error:
            raise UserError(f"--store {self.folder}: {error.strerror or error}; choose another folder") from error

    def add(self, split: str, features: Tensor, labels: Tensor) -> None:
        """Append a batch: features `(L, B, D)` on any device, labels `(B,)`.

        Raises:
            UserError: a feature is not finite or too large for the type on disk, or the disk is full.
        """
        with np.errstate(over="ignore"):  # it is looked for in the next line
            numbers = features.float().cpu().numpy().astype(self.dtype)
        if not np.isfinite(numbers).all():
            raise UserError(f"--dtype {self.dtype} cannot hold a feature of this model; use float32, or another norm")
        with self._explained():
            file, start = self._file(split, numbers.shape[2])
            row = numbers.dtype.itemsize * self.width
            for layer in range(len(self.layers)):
                file.seek(start + (layer * self.images[split] + self._done[split]) * row)
                file.write(np.ascontiguousarray(numbers[layer]).data)
        self._done[split] += len(labels)
        self._labels[split].append(labels.cpu().numpy().astype(np.int64))

    def _file(self, split: str, width: int) -> tuple[BufferedRandom, int]:
        """The split's open file and where its numbers begin; written by seeking, since a map would fill memory."""
        if split not in self._files:
            self.width = width
            file = open(self._partial / f"{split}_features.npy", "w+b")  # noqa: SIM115  (closed with the writer)
            self._stack.callback(_close, file)
            shape = (len(self.layers), self.images[split], width)
            header = {"descr": np.dtype(self.dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            self._files[split] = (file, file.tell())
        return self._files[split]

    def _finish(self) -> None:
        files = {}
        for split, expected in self.images.items():
            if self._done[split] != expected:
                raise UserError(
                    f"--data: the {split} split gave {self._done[split]} images instead of {expected}; the data changed"
                )
            self._files[split][0].flush()
            np.save(self._partial / f"{split}_labels.npy", np.concatenate(self._labels[split]))
            for kind in ("features", "labels"):
                path = self._partial / f"{split}_{kind}.npy"
                files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        manifest = {
            "format": FORMAT,
            "identity": self.identity,
            "layers": self.layers,
            "width": self.width,
            "dtype": self.dtype,
            "images": self.images,
            "files": files,
        }
        manifest["sha256"] = digest(manifest)
        (self._partial / "manifest.json").write_bytes(as_text(manifest))


def _close(file: BufferedRandom) -> None:
    """What could not be written has been complained of before."""
    with suppress(OSError):
        file.close()


def as_text(manifest: dict[str, Any]) -> bytes:
    """The one way in which a manifest is written."""
    return (json.dumps(manifest, indent=1) + "\n").encode()


def digest(manifest: dict[str, Any]) -> str:
    """Checksum of a manifest's content, that of the checksum itself left out."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return digest_of(content)


@dataclass(frozen=True)
class FeatureStore:
    """A whole, checked store, whose files stay open: whoever replaces the folder does not change what is read here.

    `arrays` are the files' arrays by their names without suffix, mapped into memory.
    """

    folder: Path
    layers: list[int]
    width: int
    dtype: FeatureType
    images: dict[str, int]
    arrays: dict[str, np.ndarray]

    @classmethod
    def open(cls, folder: Path, identity: dict[str, Any], layers: list[int]) -> "FeatureStore":
        """Open a store after looking at every byte of it.

        Args:
            identity: what the features must be of.
            layers: which layers must be there.

        Raises:
            UserError: the store is damaged, of something else, or lacks a layer.
        """
        manifest = read_manifest(folder)
        wrong = differences(manifest, identity, layers)
        if wrong:
            raise UserError(
                f"--store {folder} holds features of something else ({wrong}); name another folder, or delete this one"
            )
        found = stamps(folder)
        check_files(folder, manifest["files"])
        arrays = open_arrays(folder, manifest)
        if stamps(folder) != found:
            raise UserError(f"--store {folder} was replaced while it was read; run again, or name another folder")
        return cls(folder, manifest["layers"], manifest["width"], manifest["dtype"], manifest["images"], arrays)

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(array.nbytes for array in self.arrays.values())

    def labels(self, split: str) -> Tensor:
        """Labels of a split, int64 `(N,)`."""
        return torch.from_numpy(np.array(self.arrays[f"{split}_labels"]))

    def rows(self, layers: list[int]) -> list[int]:
        """Where the layers stand along the first dimension of the files."""
        return [self.layers.index(layer) for layer in layers]

    def mapped(self, split: str) -> np.ndarray:
        """All features of a split, `(L, N, D)` in the type on disk, read as they are looked at."""
        return self.arrays[f"{split}_features"]

    def features(self, split: str, layers: list[int]) -> Tensor:
        """Features of some layers, float32 `(len(layers), N, D)`, in memory."""
        stored = self.mapped(split)
        out = torch.empty(len(layers), *stored.shape[1:])
        for index, row in enumerate(self.rows(layers)):
            out[index] = torch.from_numpy(stored[row].astype(np.float32))
        return out

    def splits(self, layers: list[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """All splits of some layers: features float32 `(L, N, D)` and labels `(N,)`."""
        return {split: (self.features(split, layers), self.labels(split)) for split in self.images}

    def in_turn(self, layers: list[int], at_once: int = AT_ONCE) -> Iterator[list[int]]:
        """The layers in groups that fit into `at_once` bytes a split, at least one layer each."""
        size = 4 * self.width * max(self.images.values())
        count = max(1, at_once // size)
        for start in range(0, len(layers), count):
            yield layers[start : start + count]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store, if its own checksum is right.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(f"--store {folder} is no feature store: it has no manifest.json; name another folder")
    try:
        content = path.read_bytes()
        manifest: dict[str, Any] = json.loads(content)
        right = manifest["sha256"] == digest(manifest) and manifest["format"] == FORMAT and content == as_text(manifest)
        right = right and is_manifest(manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        right = False
    if not right:
        raise UserError(f"--store {folder}: manifest.json is damaged; delete the folder and run again")
    return manifest


def is_manifest(manifest: dict[str, Any]) -> bool:
    """Whether all fields are there and of their kinds, with plain names for files: a checksum alone anybody can make.

    Raises:
        KeyError, TypeError, AttributeError: they are not.
    """
    names = {f"{split}_{kind}.npy" for split in manifest["images"] for kind in ("features", "labels")}
    counts = [manifest["width"], *manifest["layers"], *manifest["images"].values()]
    counts += [entry["bytes"] for entry in manifest["files"].values()]
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and names == manifest["files"].keys()
        and not any(Path(name).name != name for name in names)
        and isinstance(manifest["identity"], dict)
        and manifest["dtype"] in ("float16", "float32")
        and all(isinstance(entry["sha256"], str) for entry in manifest["files"].values())
    )


def differences(manifest: dict[str, Any], identity: dict[str, Any], layers: list[int]) -> str:
    """In what a store is not the one asked for, in words; empty where it is."""
    stored = manifest["identity"]
    other = sorted(key for key in stored.keys() | identity.keys() if stored.get(key) != identity.get(key))
    missing = sorted(set(layers) - set(manifest["layers"]))
    if other:
        return f"differs in {', '.join(other)}"
    return f"lacks layers {','.join(map(str, missing))}" if missing else ""


def holds_something_else(folder: Path, identity: dict[str, Any], layers: list[int]) -> bool:
    """Whether an undamaged store is not the one asked for.

    Raises:
        UserError: it is damaged.
    """
    return bool(differences(read_manifest(folder), identity, layers))


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when a file of the folder is replaced or written to: its number, and the time of the last change."""
    return {path.name: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in folder.iterdir()}


def check_files(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Raise a UserError unless every file is there, as long as it was, and unchanged."""
    for name, expected in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != expected["bytes"]:
            found = "missing" if size is None else f"{size} bytes long instead of {expected['bytes']}"
            raise UserError(f"--store {folder}: {name} is {found}; delete the folder and run again")
        if sha256_of(path) != expected["sha256"]:
            raise UserError(f"--store {folder}: {name} was changed; delete the folder and run again")


def open_arrays(folder: Path, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of all files, mapped into memory, by the files' names without suffix.

    Raises:
        UserError: a file is not the array that the manifest speaks of.
    """
    arrays: dict[str, np.ndarray] = {}
    for split, count in manifest["images"].items():
        features = (len(manifest["layers"]), count, manifest["width"]), manifest["dtype"]
        for kind, (shape, dtype) in {"features": features, "labels": ((count,), "int64")}.items():
            path = folder / f"{split}_{kind}.npy"
            try:
                found = np.load(path, mmap_mode="r")
            except Exception as error:  # on foreign bytes NumPy raises anything, from EOFError to TokenError
                raise UserError(
                    f"--store {folder}: {path.name} is no array; delete the folder and run again"
                ) from error
            if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != dtype:
                raise UserError(f"--store {folder}: {path.name} is another array; delete the folder and run again")
            arrays[path.stem] = found
    return arrays
