"""Layer features on disk, larger than memory and reused by the next probe.

A store is a folder. For each split it holds `SPLIT_features.npy (L, N, D)` and `SPLIT_labels.npy (N,)`, plain NumPy
files (D is the widest layer's, and narrower ones end in zeros), and `manifest.json`: what they are features of, with a
checksum of each file and one of its own. The folder appears under its name only when it is whole.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from igpt.data import SPLITS
from igpt.system import UserError, atomic_folder, check_own, digest_of, sha256_of

FeatureType = Literal["float16", "float32"]
FORMAT = 1
FILES = ("manifest.json", "*_features.npy", "*_labels.npy")  # of a store
NAMES = {f"{split}_{kind}.npy" for split in SPLITS for kind in ("features", "labels")}
AT_ONCE = 2**29  # bytes of float32 features of one split that a probe holds in memory, if it can take layers in turn


class StoreWriter:
    """Writes a store batch by batch; memory does not depend on the number of images.

    Used as a context manager: the store stands under its name only after a clean exit. One that is there is replaced,
    but nothing else.

    Args:
        identity: plain data that say what these are features of.
        images: number N of images of each split.
        option: that names the folder, or a folder that it lies in.
        widths: numbers that each layer has, where they differ.

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
        widths: Sequence[int] = (),
    ) -> None:
        self.folder, self.identity, self.layers, self.dtype, self.option = folder, identity, layers, dtype, option
        self.images: dict[str, int] = dict(images)
        self.width, self.widths = 0, list(widths) if len(set(widths)) > 1 else []
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
            with self._stack, self._disk():
                self._finish()
        else:
            self._stack.__exit__(kind, error, trace)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Tell of a full disk in one line."""
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
        with self._disk():
            file, start = self._file(split, numbers.shape[2])
            for layer, rows in enumerate(numbers):
                file.seek(start + (layer * self.images[split] + self._done[split]) * rows.itemsize * self.width)
                file.write(np.ascontiguousarray(rows).data)
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
            for path in (self._partial / f"{split}_features.npy", self._partial / f"{split}_labels.npy"):
                files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "identity": self.identity,
            "layers": self.layers,
            "width": self.width,
            **({"widths": self.widths} if self.widths else {}),
            "dtype": self.dtype,
            "images": self.images,
            "files": files,
        }
        manifest["sha256"] = digest(manifest)
        (self._partial / "manifest.json").write_bytes(as_text(manifest))


def _close(file: BufferedRandom) -> None:
    """Close a file; what could not be written has been complained of before."""
    with suppress(OSError):
        file.close()


def as_text(manifest: dict[str, Any]) -> bytes:
    """The manifest as it stands on disk."""
    return (json.dumps(manifest, indent=1) + "\n").encode()


def digest(manifest: dict[str, Any]) -> str:
    """Checksum of a manifest's content, apart from the checksum itself."""
    return digest_of({key: value for key, value in manifest.items() if key != "sha256"})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store, if its checksum is right and its fields are there.

    It names no files but those of a store, so that one made up by a stranger leads nowhere else.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(f"--store {folder} is no feature store: it has no manifest.json; name another folder")
    try:
        content = path.read_bytes()
        found: dict[str, Any] = json.loads(content)
        widths = found.get("widths", [found["width"]] * len(found["layers"]))
        counts = [found["width"], *widths, *found["layers"], *found["images"].values()]
        right = (
            (found["sha256"], found["format"], content) == (digest(found), FORMAT, as_text(found))
            and all(type(count) is int for count in counts)
            and (len(widths), max(widths, default=0)) == (len(found["layers"]), found["width"])
            and (found["images"].keys(), found["files"].keys()) == (set(SPLITS), NAMES)
            and all(entry.keys() == {"bytes", "sha256"} for entry in found["files"].values())
            and isinstance(found["identity"], dict)
            and found["dtype"] in get_args(FeatureType)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        right = False
    if not right:
        raise UserError(f"--store {folder}: manifest.json is damaged; delete the folder and run again")
    return found


def differences(manifest: dict[str, Any], identity: dict[str, Any], layers: list[int]) -> str:
    """In what a store is not the one asked for, in words; empty where it is."""
    stored = manifest["identity"]
    other = sorted(key for key in stored.keys() | identity.keys() if stored.get(key) != identity.get(key))
    if other:
        return f"differs in {', '.join(other)}"
    missing = sorted(set(layers) - set(manifest["layers"]))
    return f"lacks layers {','.join(map(str, missing))}" if missing else ""


def open_array(path: Path, expected: dict[str, Any], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """One file's array, mapped into memory.

    Raises:
        UserError: the file is missing, was changed, or is not the array that the manifest speaks of.
    """
    size, array = path.stat().st_size if path.is_file() else None, None
    if size == expected["bytes"]:
        with suppress(Exception):  # on foreign bytes NumPy raises anything, from EOFError to TokenError
            array = np.load(path, mmap_mode="r")
    if size is None:
        wrong = "is missing"
    elif size != expected["bytes"]:
        wrong = f"is {size} bytes long instead of {expected['bytes']}"
    elif sha256_of(path) != expected["sha256"]:  # after it was opened: who replaces it now changes nothing
        wrong = "was changed"
    elif not isinstance(array, np.ndarray):
        wrong = "is no array"
    elif (array.shape, array.dtype) != (shape, np.dtype(dtype)):
        wrong = "is another array"
    else:
        return array
    raise UserError(f"--store {path.parent}: {path.name} {wrong}; delete the folder and run again")


@dataclass(frozen=True)
class FeatureStore:
    """A whole, checked store, whose files stay open: whoever replaces the folder does not change what is read here.

    `arrays` are the files' arrays by their names without suffix, mapped into memory. `width` is that of the widest
    layer, `widths` are those of all.
    """

    folder: Path
    layers: list[int]
    width: int
    dtype: FeatureType
    images: dict[str, int]
    arrays: dict[str, np.ndarray]
    widths: list[int]

    @classmethod
    def open(cls, folder: Path, identity: dict[str, Any], layers: list[int]) -> "FeatureStore":
        """Open a store after looking at every byte of it.

        Raises:
            UserError: the store is damaged, of something else, or lacks a layer.
        """
        manifest = read_manifest(folder)
        wrong = differences(manifest, identity, layers)
        if wrong:
            raise UserError(
                f"--store {folder} holds features of something else ({wrong}); name another folder, or delete this one"
            )
        arrays, stored, width, dtype = {}, manifest["layers"], manifest["width"], manifest["dtype"]
        for split, count in manifest["images"].items():
            for kind, shape, of in (("features", (len(stored), count, width), dtype), ("labels", (count,), "int64")):
                path = folder / f"{split}_{kind}.npy"
                arrays[path.stem] = open_array(path, manifest["files"][path.name], shape, of)
        widths = manifest.get("widths", [width] * len(stored))
        return cls(folder, stored, width, dtype, manifest["images"], arrays, widths)

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
        """Features of some layers, float32 `(len(layers), N, D)`, in memory; D is the widest of these.

        Zeros at a narrower one's end change no penalised regression, and no cosine.
        """
        stored, rows = self.mapped(split), self.rows(layers)
        width = max(self.widths[row] for row in rows)
        out = torch.empty(len(layers), stored.shape[1], width)
        for index, row in enumerate(rows):
            out[index] = torch.from_numpy(stored[row][:, :width].astype(np.float32))
        return out

    def splits(self, layers: list[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """All splits of some layers: features float32 `(L, N, D)` and labels `(N,)`."""
        return {split: (self.features(split, layers), self.labels(split)) for split in self.images}

    def in_turn(self, layers: list[int], at_once: int = AT_ONCE) -> Iterator[list[int]]:
        """The layers in groups of one width that fit into `at_once` bytes a split, at least one layer each."""
        for width, alike in groupby(layers, lambda layer: self.widths[self.layers.index(layer)]):
            count, some = max(1, at_once // (4 * width * max(self.images.values()))), list(alike)
            yield from (some[start : start + count] for start in range(0, len(some), count))
