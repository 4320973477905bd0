"""Makes Python on Linux behave as on Windows, as far as igpt could notice; loaded by every process that finds it first.

Python imports a module of this name when it starts, in the processes that a process starts as well. What other
libraries need of Linux they keep: the attributes that are missing here are missing for code of igpt alone. The rest is
as it is there for everybody: loader processes are spawned and not forked, no symbolic links, text that is not UTF-8
unless it is said to be, files that cannot be removed or replaced while they are open, folders that cannot be opened.
"""

import builtins
import errno
import io
import os
import signal
import subprocess
import sys
from types import ModuleType

LINUX_MODULES = ("fcntl", "grp", "pwd", "resource", "syslog", "termios")
LINUX_NAMES = {
    "os": {"fork", "forkpty", "getpgid", "getuid", "geteuid", "kill", "killpg", "register_at_fork", "setsid", "uname"}
    | {"sched_getaffinity", "sched_setaffinity", "statvfs", "mkfifo", "chown", "fchmod", "nice", "sync", "getloadavg"}
    | {"O_CLOEXEC", "O_DIRECTORY", "O_DSYNC", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "fdatasync", "posix_fadvise"},
    "signal": {"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "setitimer"}
    | {"pthread_kill", "pthread_sigmask", "sigwait", "set_wakeup_fd"},
}  # (os.kill is there on Windows, where it ends a process or interrupts it, whatever the signal)
THROUGH = (f"{os.sep}pathlib", f"{os.sep}shutil.py")
OWN = tuple(f"{os.sep}{name}{os.sep}" for name in ("igpt", "igpt_datamodules"))


def asked_by_igpt() -> bool:
    """Whether the function that calls this was called by code of igpt, perhaps through `pathlib` or `shutil`."""
    frame = sys._getframe(2)
    while frame.f_back is not None and any(part in frame.f_code.co_filename for part in THROUGH):
        frame = frame.f_back
    return any(part in frame.f_code.co_filename for part in OWN)


class Elsewhere(ModuleType):
    """A module some of whose names igpt does not see."""

    def __getattribute__(self, name: str) -> object:
        hidden = LINUX_NAMES[ModuleType.__getattribute__(self, "__name__")]
        if name in hidden and asked_by_igpt():
            raise AttributeError(f"module has no attribute {name!r} on this system")
        return ModuleType.__getattribute__(self, name)


def without_symlinks(*arguments: object, **options: object) -> None:
    """`os.symlink` of a user without the privilege."""
    raise OSError(errno.EINVAL, "A required privilege is not held by the client")


def is_open(path: object) -> bool:
    """Whether this process has a file open or mapped, or one in a folder."""
    place = os.path.realpath(os.fsdecode(path))
    taken = [line.split(maxsplit=5)[-1].strip() for line in real_open("/proc/self/maps")]
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            taken.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    return any(name == place or name.startswith(place + os.sep) for name in taken)


def refusing_open_files(name: str) -> None:
    """Have a function of `os` refuse files that are open, where igpt calls it."""
    real = getattr(os, name)

    def function(*paths: object, **options: object) -> object:
        if asked_by_igpt():
            for path in paths:
                if isinstance(path, (str, os.PathLike)) and is_open(path):
                    raise PermissionError(errno.EACCES, "The process cannot access the file", os.fspath(path))
        return real(*paths, **options)

    setattr(os, name, function)


def open_text(file: object, mode: str = "r", buffering: int = -1, encoding: str | None = None, *rest, **more) -> object:
    """`open`: the system's text is no UTF-8, and igpt must say which it means."""
    if "b" not in mode and encoding in (None, "locale"):
        if asked_by_igpt():
            raise AssertionError(f"igpt opens {file} as text without an encoding")
        encoding = "cp1252"
    return real_open(file, mode, buffering, encoding, *rest, **more)


def open_descriptor(path: object, flags: int, *rest: object, **more: object) -> int:
    """`os.open`: folders cannot be opened."""
    if asked_by_igpt() and os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
    return real_os_open(path, flags, *rest, **more)


def fsync(descriptor: int) -> None:
    """`os.fsync`: only what may be written is."""
    if "flags:\t" in (info := real_open(f"/proc/self/fdinfo/{descriptor}").read()):
        flags = int(info.partition("flags:\t")[2].split()[0], 8)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
    real_fsync(descriptor)


def start(self: object, *arguments: object, **options: object) -> None:
    """`subprocess.Popen`: what only POSIX has is refused."""
    for name in ("preexec_fn", "pass_fds", "start_new_session", "process_group"):
        if options.get(name):
            raise ValueError(f"{name} is not supported on this system")
    real_start(self, *arguments, **options)


real_open, real_os_open, real_fsync, real_start = io.open, os.open, os.fsync, subprocess.Popen.__init__

if os.environ.get("IGPT_ELSEWHERE"):
    import multiprocessing
    import shutil

    multiprocessing.set_start_method("spawn")
    for name in LINUX_MODULES:
        sys.modules[name] = None
    shutil._use_fd_functions = False
    os.symlink, os.open, os.fsync = without_symlinks, open_descriptor, fsync
    for name in ("remove", "rename", "replace", "rmdir", "unlink"):
        refusing_open_files(name)
    builtins.open = io.open = open_text
    subprocess.Popen.__init__ = start
    os.__class__ = signal.__class__ = Elsewhere
