"""File locks: one writer at a time. The operating system frees a lock when its process ends, however it ends.

The lock of `runs/x` is the empty file `runs/.x.lock` beside it, so that it stays in place when `runs/x` is moved. On a
network disk it is as good as that disk's locks; one without locks is named in a warning.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

from igpt.system.errors import UserError

PATIENCE = 60.0  # seconds to wait for what takes another process a moment


@contextmanager
def only_writer(target: str | Path, instead: str) -> Iterator[None]:
    """Hold a file or folder for writing, whether it exists or not.

    Args:
        instead: what the user can do where another process holds it, such as "give another --name".

    Raises:
        UserError: another process holds it, or the lock cannot be made.
    """
    taken = f"another igpt writes to {target}; wait until it has ended, or {instead}"
    with _held(Path(target), 0.0, taken, instead):
        yield


@contextmanager
def in_turn(target: str | Path) -> Iterator[None]:
    """Wait for one's turn to read a small file, change it and write it back.

    Raises:
        UserError: another process has held it for a minute, or the lock cannot be made.
    """
    taken = f"another igpt has held {target} for {PATIENCE:.0f} s; end it, then try again"
    with _held(Path(target), PATIENCE, taken, "make it a folder that can be written to"):
        yield


@contextmanager
def reader(target: str | Path) -> Iterator[None]:
    """Keep a folder from being moved while a command reads from it; any number of processes may. See `check_unread`.

    Where no lock can be made, the folder is read all the same.
    """
    place = Path(os.path.realpath(target))
    lock = FileLock(place.with_name(f".{place.name}.{os.getpid()}.reader.lock"))
    with suppress(OSError, NotImplementedError):
        lock.acquire(timeout=0)
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                os.unlink(lock.lock_file)
            lock.release()


def check_unread(target: str | Path, instead: str) -> None:
    """Refuse, with a UserError, to move a folder that another process reads."""
    place = Path(os.path.realpath(target))
    for file in place.parent.glob(f".{escape(place.name)}.*.reader.lock"):
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another igpt reads {target}; wait until it has ended, or {instead}") from None
        except (OSError, NotImplementedError):
            continue
        with suppress(OSError):  # its process was killed
            os.unlink(file)
        lock.release()


@contextmanager
def _held(target: Path, patience: float, taken: str, instead: str) -> Iterator[None]:
    place = Path(os.path.realpath(target))
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience)
    except Timeout:
        raise UserError(taken) from None
    except NotImplementedError:
        warnings.warn(f"the disk of {target} has no locks; see to it that nothing else writes there", stacklevel=2)
    except OSError as error:
        reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror or error
        raise UserError(f"cannot write beside {target}: {reason}; {instead}") from error
    try:
        yield
    finally:
        if not patience:  # nobody waits for it, so that nothing has to be left there
            with suppress(OSError):  # Windows keeps a file that is open
                os.unlink(lock.lock_file)
        lock.release()
