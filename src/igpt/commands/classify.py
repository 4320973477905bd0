"""`igpt classify` and `igpt embed`: classes and features of picture files, by the same functions as from Python."""

import csv
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Literal

import numpy as np

from igpt.api import Broken, Model, Predictions, find_pictures, open_model
from igpt.system import Precision, UserError, atomic_path, check_not_read, check_own, compute_of, percent
from igpt.training import ready

FEW = 64  # pictures up to which starting processes takes longer than reading
HEAD = ["file", "class", "probability"]


def classify(
    files: list[str],
    ckpt: str,
    probe: str | None = None,
    out: str | None = None,
    top: int = 1,
    batch_size: int | None = None,
    workers: int | None = None,
    accelerator: str = "auto",
    precision: Precision = "auto",
    tf32: bool = True,
) -> None:
    """Class and probability of each picture, by a fine-tuned checkpoint, or by a generative one and a probe of it.

    Prints a line a picture: probability in per cent, class, file; or writes them to OUT as CSV or JSON, probabilities
    as shares of 1. Files that cannot be read are named on stderr and left out; exit code 2 where none can be read.

    Args:
        files: pictures, and folders whose pictures are taken, with those of the folders in them.
        ckpt: checkpoint, run's folder or run's name; fine-tuned on classes, unless there is a probe.
        probe: folder that `igpt probe --save` wrote for this checkpoint.
        out: file to write instead of the table, ending in .csv or .json.
        top: classes a picture, the likeliest first.
        batch_size: pictures at once; as many as in training if left out.
        workers: processes that read the files; as many as there are cores if left out, and none for a few files.
        accelerator: auto, cpu, gpu, cuda or mps.
        precision: of the network; auto is what is quickest here.
        tf32: on CUDA, let float32 products round to TF32.
    """
    if top < 1:
        raise UserError(f"--top {top} must be at least 1")
    if out is not None:
        check_table(Path(out), files)
    model, paths = opened(files, ckpt, probe, (accelerator, precision, tf32))
    if not model.class_names:
        raise UserError(
            f"--ckpt {ckpt} has no class head; name a fine-tuned checkpoint, or --probe FOLDER of one that "
            "'igpt probe --save' wrote"
        )
    with listed("classify", paths) as broken:
        found = model.predict(paths, batch_size=batch_size, workers=processes(workers, paths), broken=broken)
    rows = list(zip(left(paths, broken), found.top(top), strict=True))
    if out is None:
        print(table(rows, found), end="")
    else:
        write_table(Path(out), rows, found, broken, ckpt)
    print(f"classified {said(paths, broken)}{f'; wrote {out}' if out else ''}", file=sys.stderr)


def embed(
    files: list[str],
    ckpt: str,
    layers: str,
    out: str,
    norm: Literal["normed", "raw"] = "normed",
    grid: int = 1,
    batch_size: int | None = None,
    workers: int | None = None,
    accelerator: str = "auto",
    precision: Precision = "auto",
    tf32: bool = True,
) -> None:
    """Layer features of pictures as float32, a row a picture.

    Writes NAME.npy, the features of one layer (N, D), and NAME.txt with the file of each row; or NAME.npz, which holds
    `files`, and `layer_6` and so on of any layers. Files that cannot be read are named on stderr and left out; exit
    code 2 where none can be read.

    Args:
        files: pictures, and folders whose pictures are taken, with those of the folders in them.
        ckpt: checkpoint, run's folder or run's name.
        layers: a number from 0 (input of the first block) to L (final norm), or from -1 (the last) down; several with
            commas, or all.
        out: file to write, ending in .npy or .npz.
        norm: normed (the paper's) or raw, the residual stream before the norm.
        grid: 1 is the mean over all positions; 2 keeps the means of the picture's quarters apart.
        batch_size: pictures at once; as many as in training if left out.
        workers: processes that read the files; as many as there are cores if left out, and none for a few files.
        accelerator: auto, cpu, gpu, cuda or mps.
        precision: of the network; auto is what is quickest here.
        tf32: on CUDA, let float32 products round to TF32.
    """
    target, asked = Path(out), numbers(layers)
    check_arrays(target, files, asked)
    model, paths = opened(files, ckpt, None, (accelerator, precision, tf32))
    model.layer_numbers(asked)
    with listed("embed", paths) as broken:
        found = model.features(
            paths, asked, norm=norm, grid=grid, batch_size=batch_size, workers=processes(workers, paths), broken=broken
        )
    kept = left(paths, broken)
    if target.suffix == ".npz":
        with atomic_path(target) as path, path.open("wb") as file:
            arrays = dict(zip(map("layer_{}".format, model.layer_numbers(asked).values()), found.values(), strict=True))
            np.savez(file, files=np.array(kept), **arrays)  # type: ignore[arg-type]
    else:
        with atomic_path(target) as path, atomic_path(target.with_suffix(".txt")) as names:
            np.save(path, next(iter(found.values())))
            names.write_text("".join(f"{name}\n" for name in kept), encoding="utf-8")
    rows = f"{len(kept):,} rows of {next(iter(found.values())).shape[1]} numbers of layer {layers}"
    beside = "" if target.suffix == ".npz" else f", {target.with_suffix('.txt').name}"
    print(f"embedded {said(paths, broken)}\nwrote {out}{beside}: {rows}", file=sys.stderr)


def opened(files: list[str], ckpt: str, probe: str | None, how: tuple[str, Precision, bool]) -> tuple[Model, list[str]]:
    """The model and the picture files that are meant; what is said about precision goes to stderr."""
    if not files:
        raise UserError("FILES is missing; name one picture or more, or a folder of them")
    accelerator, precision, tf32 = how
    paths = find_pictures(files)
    with redirect_stdout(sys.stderr):
        ready(compute_of(accelerator, precision), tf32)
    return open_model(ckpt, accelerator, precision, probe), paths


def processes(workers: int | None, paths: list[str]) -> int:
    """How many processes read the files."""
    if workers is not None and workers < 0:
        raise UserError(f"--workers {workers} must be at least 0")
    return workers if workers is not None else 0 if len(paths) <= FEW else os.cpu_count() or 1


@contextmanager
def listed(verb: str, paths: list[str]) -> Iterator[Broken]:
    """A list for what cannot be read, each named on stderr at the end, in a line of its own."""
    broken: Broken = []
    try:
        yield broken
    except UserError as error:
        if len(broken) < len(paths):
            raise
        raise UserError(f"none of the {len(paths):,} pictures can be read, as listed") from error
    finally:
        for _, reason in broken:
            print(f"igpt {verb}: {reason}", file=sys.stderr)


def left(paths: list[str], broken: Broken) -> list[str]:
    """The files that could be read, in their order."""
    lost = {name for name, _ in broken}
    return [path for path in paths if path not in lost]


def said(paths: list[str], broken: Broken) -> str:
    """How many pictures of how many."""
    note = f"; {len(broken):,} cannot be read, as listed" if broken else ""
    return f"{len(paths) - len(broken):,} of {len(paths):,} pictures{note}"


Rows = list[tuple[str, list[tuple[str, float]]]]


def table(rows: Rows, found: Predictions) -> str:
    """A line a picture: probability and class of the likeliest, then the file."""
    width = max(map(len, found.names))
    lines = ("  ".join(f"{percent(probability):>7} {name:{width}}" for name, probability in best) for _, best in rows)
    return "".join(f"{line}  {file}\n" for line, (file, _) in zip(lines, rows, strict=True))


def write_table(target: Path, rows: Rows, found: Predictions, broken: Broken, ckpt: str) -> None:
    """CSV with a row a picture, or JSON that also says of which checkpoint and what could not be read."""
    with atomic_path(target) as path:
        if target.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                more = [f"{name}_{place}" for place in range(2, len(rows[0][1]) + 1) for name in HEAD[1:]]
                writer.writerow([*HEAD, *more])
                for name, best in rows:
                    writer.writerow([name, *(cell for one, share in best for cell in (one, f"{share:.9g}"))])
            return
        pictures = [
            {"file": name, "class": best[0][0], "probability": best[0][1], "top": [list(pair) for pair in best]}
            for name, best in rows
        ]
        unread = [{"file": name, "reason": reason} for name, reason in broken]
        content = {"checkpoint": ckpt, "classes": list(found.names), "pictures": pictures, "unreadable": unread}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_table(target: Path, read: list[str]) -> None:
    """Raise a UserError for another suffix, or a file there that is no earlier table of this verb."""

    def made(path: Path) -> bool:
        if path.suffix == ".csv":
            return path.read_bytes().startswith(",".join(HEAD).encode())
        return bool({"checkpoint", "classes", "pictures"} <= json.loads(path.read_bytes()).keys())

    if target.suffix not in (".csv", ".json"):
        raise UserError(f"--out {target} must end in .csv or .json")
    check_not_read((target,), read)
    check_own(target, made)


def check_arrays(target: Path, read: list[str], layers: list[int] | None) -> None:
    """Raise a UserError for another suffix, too many layers for it, or files there that are not of this verb."""
    if target.suffix not in (".npy", ".npz"):
        raise UserError(f"--out {target} must end in .npy (one layer) or .npz")
    if target.suffix == ".npy" and (layers is None or len(layers) != 1):
        raise UserError(f"--out {target} holds the features of one layer; name an .npz file for several")
    beside = target.with_suffix(".txt")
    check_not_read((target, beside), read)

    def made(_: Path) -> bool:
        if target.suffix == ".npz":
            with np.load(target) as arrays:
                return "files" in arrays
        return beside.exists() and bool(np.load(target, mmap_mode="r").dtype == np.float32)

    check_own(target, made)
    if target.suffix == ".npy":
        check_own(beside, made)


def numbers(layers: str) -> list[int] | None:
    """The layers that were typed; None for all."""
    if layers == "all":
        return None
    try:
        return [int(part) for part in layers.split(",")]
    except ValueError as error:
        raise UserError(f"--layers {layers!r} is neither 'all' nor numbers such as 6 or 4,6") from error
