"""Checkpoint files: read as plain data, without executing anything; written whole, with a checksum beside each."""

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igpt.checkpoints.spec import header_of
from igpt.system import UserError, remove_folder, replacing, same_file, sha256_of, sync

CHECKPOINT_KEY = "igpt"  # under this key stand model and data as plain data
LAST = "last.ckpt"  # the link to the newest
SUMS = ".sha256"
META = "meta.pt"  # what a sharded checkpoint, which is a folder, holds beside weights and moments


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's content as plain data and tensors on the CPU, once its checksum is found right.

    Under `CHECKPOINT_KEY` stands a header that names a model by class path and arguments (`spec.header_of`).

    Raises:
        UserError: not there, sharded, damaged (the newest intact one beside it is named), not a checkpoint of igpt, or
            a pickle with code in it, which is not executed.
    """
    path = Path(path)
    if (path / META).is_file():
        raise UserError(f"checkpoint {path} is sharded; {to_one_file(path)}")
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; give the path of a .ckpt file")
    try:
        intact = fits_checksum(path)
        content = load_plain(path) if intact else None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} is no plain checkpoint: it holds something other than tensors and plain data, which "
            "is refused and was not executed; use a file written by igpt"
        ) from error
    except Exception as error:  # on foreign bytes torch raises anything, from EOFError to IndexError
        reason = "it is damaged or cut short"
        if isinstance(error, OSError) and error.filename is not None:  # it could not be opened
            reason = error.strerror or reason
        raise UserError(f"checkpoint {path} cannot be read: {reason}; {instead_of(path)}") from error
    if not intact:
        raise UserError(
            f"checkpoint {path} is damaged: its sha256 differs from {checksum_file(path)}; {instead_of(path)}"
        )
    if not isinstance(content, dict) or CHECKPOINT_KEY not in content or "state_dict" not in content:
        raise UserError(f"checkpoint {path} was not written by igpt; use a file from runs/NAME/checkpoints")
    return content | {CHECKPOINT_KEY: header_of(content[CHECKPOINT_KEY], path)}


def check_finite(state: Iterable[tuple[str, Any]], source: str) -> None:
    """Refuse the weights of a training that diverged: a UserError names the first tensor that is not finite.

    Args:
        state: names and tensors; anything else is passed over.
        source: the file, or the option with it.
    """
    for name, tensor in state:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.is_sparse or not tensor.numel():
            continue
        if not torch.isfinite(torch.stack(tensor.aminmax())).all():
            raise UserError(
                f"{source}: the network has values that are not finite (in {name}); use an earlier checkpoint"
            )


def load_plain(path: Path) -> Any:
    """`torch.load` of tensors and plain data; an error where the file holds anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about strange pickles; what cannot be read safely is refused
        return torch.load(path, map_location="cpu", weights_only=True)


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint and its checksum, both or neither; at any moment `path` is the old file or the new one, whole.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    checksum = beside(path)
    # The second gets its name first.
    with replacing(checksum, durable=True) as sums, replacing(path, durable=True) as partial:
        try:
            with partial.open("wb") as file:
                torch.save(content, file)
        except (OSError, RuntimeError) as error:  # torch's own words for a write that failed hide the system's
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise OSError(cause.errno, cause.strerror, str(path)) from None
        sums.write_bytes(f"{sha256_of(partial)}  {path.name}\n".encode())
        sync(sums)  # a disk that has no room for it says so now
        checksum.unlink(missing_ok=True)  # no checkpoint ever stands beside the checksum of another


def checksum_file(path: Path) -> Path:
    """`NAME.sha256` beside the file that `path` is or links to, in the format of sha256sum."""
    return beside(original(path))


def beside(path: Path) -> Path:
    """Where the checksum of a file stands."""
    return path.with_name(f"{path.name}{SUMS}")


def original(path: Path) -> Path:
    """The file that `path` is or links to; `last.ckpt` may also be a second name of a step's file (`link_last`)."""
    if path.name == LAST and not path.is_symlink():
        return next((step for step in step_checkpoints(path.parent).values() if same_file(step, path)), path).resolve()
    return path.resolve()


def move_checkpoint(source: Path, target: Path) -> None:
    """Give a file that `write_checkpoint` wrote, and its checksum, another folder and the same name."""
    checksum_file(target).unlink(missing_ok=True)  # no checkpoint ever stands beside the checksum of another
    os.replace(source, target)
    os.replace(checksum_file(source), checksum_file(target))


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, file or folder, with its checksum; half of one never stands under its name."""
    checksum_file(path).unlink(missing_ok=True)
    if path.is_dir():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def fits_checksum(path: Path) -> bool:
    """Whether the file has the checksum that stands beside it; without one, those within the archive are looked at.

    Of a folder, whether all of its files have those that stand in it.

    Raises:
        BadZipFile: one of these is wrong.
    """
    if path.is_dir():
        return not misfits(path)
    try:
        expected = checksum_file(path).read_bytes().split()
        return bool(expected) and sha256_of(path).encode() == expected[0]
    except FileNotFoundError:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if wrong := archive.testzip():
                    raise zipfile.BadZipFile(wrong) from None
        return True


def write_sums(folder: Path, process: int) -> None:
    """`PROCESS.sha256`, in the format of sha256sum, of the files of a sharded checkpoint that a process wrote.

    They are named after the process; all others count as those of the first.
    """
    pieces = {path: re.match(r"__(\d+)_", path.name) for path in folder.iterdir() if path.suffix != SUMS}
    own = sorted(path for path, piece in pieces.items() if process == (int(piece[1]) if piece else 0))
    sums = folder / f"{process}{SUMS}"
    sums.write_bytes("".join(f"{sha256_of(path)}  {path.name}\n" for path in own).encode())
    sync(sums)


def misfits(folder: Path) -> list[str]:
    """The files of a sharded checkpoint that are missing or have another checksum than stands there.

    Folders of versions before have no checksums, and so no misfits. A list of checksums that is damaged is one itself.
    """
    wrong = []
    for sums in sorted(folder.glob(f"*{SUMS}")):
        for line in sums.read_text(errors="replace").splitlines():
            expected, _, name = line.partition("  ")
            if Path(name).name != name or not name:
                wrong.append(sums.name)
            elif not (folder / name).is_file() or sha256_of(folder / name) != expected:
                wrong.append(name)
    return wrong


def checksum_of(path: Path) -> str:
    """SHA-256 of a checkpoint that has been read: the one beside it, which was compared then, or else counted now."""
    try:
        return checksum_file(path).read_bytes().split()[0].decode()
    except FileNotFoundError:
        return sha256_of(path)


def step_path(folder: Path, step: int) -> Path:
    """What the checkpoint of a step is called."""
    return folder / f"step={step:07d}.ckpt"


def step_checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder, sharded ones too, by their step, the newest first; see `step_path`."""
    found = {int(m[1]): path for path in folder.glob("step=*.ckpt") if (m := re.fullmatch(r"step=(\d+)", path.stem))}
    return dict(sorted(found.items(), reverse=True))


def newest_intact(folder: Path, wanted: Callable[[int], bool] = lambda step: True) -> Path | None:
    """The checkpoint of the latest wanted step that can be read and fits its checksum, if there is one."""
    return next((path for step, path in step_checkpoints(folder).items() if wanted(step) and is_intact(path)), None)


def is_intact(path: Path) -> bool:
    """Whether a checkpoint, sharded or not, can be read and fits its checksum."""
    with suppress(Exception):  # whatever is wrong with it
        return fits_checksum(path) and CHECKPOINT_KEY in load_plain(path / META if path.is_dir() else path)
    return False


def to_one_file(sharded: Path) -> str:
    """What to do about a sharded checkpoint where a file is needed."""
    return f"make a file of it: igpt export --ckpt {sharded} --format checkpoint --out FOLDER"


def instead_of(damaged: Path) -> str:
    """What to use in place of a damaged checkpoint."""
    intact = newest_intact(damaged.resolve().parent)
    return f"the newest intact one is {damaged.parent / intact.name}" if intact else "use an earlier one"
