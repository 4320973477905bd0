"""Weights shared out over processes: FSDP2, for networks whose weights and moments no single device holds."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from igpt.model import PixelTransformer
from igpt.system import UserError

DATA, TENSOR = "data_parallel", "tensor_parallel"  # dimensions of the mesh, as Lightning names them


def shard(transformer: PixelTransformer, mesh: DeviceMesh, *others: nn.Module) -> None:
    """Leave each process its part of every weight, gradient and moment; a block is put together while it is computed.

    What is not in a block is put together for the whole pass. Names in the state dict stay as they are. Only training
    and its losses work on the result: features, drawing and probes read single weights of the blocks.

    Args:
        transformer: on any device; changed in place, and left alone where that has been done before.
        mesh: all processes, with the dimensions `data_parallel` and `tensor_parallel`.
        others: layers beside the transformer that are trained with it.

    Raises:
        UserError: the processes are to share single products too, for which nothing here is made.
    """
    if mesh[TENSOR].size() != 1:
        raise UserError("--trainer.strategy: tensor_parallel_size must be 1; set data_parallel_size to all processes")
    if isinstance(transformer, FSDPModule):
        return
    for module in (*transformer.blocks, transformer.head, transformer, *others):
        fully_shard(module, mesh=mesh[DATA])
    register_fsdp_forward_method(transformer, "final")  # training enters there, and calls the head itself
