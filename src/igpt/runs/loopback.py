"""The processes of a run on one machine talk over its loopback interface, where no other machine can connect."""

import os
import socket
from contextlib import suppress

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch.distributed import TCPStore  # type: ignore[attr-defined]

LOOPBACK = "127.0.0.1"
_stores: list[TCPStore] = []  # they end with the process


def stay_on_this_machine(trainer: pl.Trainer) -> None:
    """Start the store by which the processes of a run find each other; that of PyTorch would listen everywhere.

    Left alone: runs of several machines, processes that torchrun or a scheduler starts, and a MASTER_ADDR that is set.
    PyTorch then takes the store as one that an agent has started. gloo and NCCL are pointed to the same interface.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if not isinstance(environment, LightningEnvironment) or environment.creates_processes_externally:
        return
    if trainer.num_nodes > 1 or "MASTER_ADDR" in os.environ or "MASTER_PORT" in os.environ:
        return
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    store = TCPStore(LOOPBACK, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    _stores.append(store)
    os.environ |= {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    for name in loopback_names():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def loopback_names() -> list[str]:
    """What the loopback interface is called here: "lo" on Linux, "lo0" on macOS; none where it is not known."""
    with suppress(OSError, AttributeError):
        return [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    return []
