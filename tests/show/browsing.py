"""`igpt show` in a process of its own, and what one asks it."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def get(port: int, path: str, host: str = "127.0.0.1", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and content, of a path that is sent as it stands."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def shown(home, checkpoint, *options) -> Iterator[int]:
    """The port of a page that is there."""
    port, log = free_port(), home / "show.log"
    command = [sys.executable, "-m", "igpt", "show", "--ckpt", checkpoint, "--port", port, *options]
    with log.open("w") as file:
        process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file, cwd=home)
    try:
        for _ in range(1200):
            if "igpt show: http" in log.read_text() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
