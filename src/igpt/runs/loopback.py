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
    """Start the rendezvous store of a run's processes on the loopback interface; PyTorch's own would listen everywhere.

    Left alone: runs of several machines, processes that torchrun or a scheduler starts, and a MASTER_ADDR that is set.
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
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}  # as if an agent had it
    with suppress(OSError, AttributeError):  # Windows names no interfaces
        for name in {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}:  # of Linux, of macOS
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
