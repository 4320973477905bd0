"""Where the processes of a run listen, by what Linux says of their sockets."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import environment, fit_command, write_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def family(pid):
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def listening(pids):
    """Local addresses, in the hexadecimal of /proc, of the sockets on which the processes listen."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(entry)))
            except OSError:
                continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


@pytest.mark.slow
def test_two_processes_of_one_machine_listen_on_its_loopback_interface_alone(digits_run, tmp_path):
    """Slow: what two processes compute is in tests/test_processes.py."""
    (tmp_path / "digits.npy").symlink_to(digits_run.palette)
    write_config(tmp_path, "AR")
    command = fit_command(tmp_path, "runs", "AR", "ddp", "--trainer.max_steps", 100_000)
    loopback = {socket.inet_aton("127.0.0.1")[::-1].hex().upper()}
    found = set()
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 100
            while time.monotonic() < until and not list(tmp_path.glob("runs/AR/checkpoints/step=*")):
                assert process.poll() is None
                found |= listening(family(process.pid))
                time.sleep(0.1)
            found |= listening(family(process.pid))
        finally:
            process.terminate()
    assert found == loopback
