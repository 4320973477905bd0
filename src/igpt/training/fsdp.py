"""FSDP2: shards parameters and optimizer state across processes."""

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from igpt.model import PixelTransformer
from igpt.system import UserError

DATA, TENSOR = "data_parallel", "tensor_parallel"  # dimensions of the mesh, as Lightning names them


def apply_fsdp(transformer: PixelTransformer, mesh: DeviceMesh, *others: nn.Module, precision: str = "32-true") -> None:
    """Apply FSDP2 to each block, the head, the rest of the transformer, and other modules that are trained with it.

    Under bf16-mixed, blocks and head are gathered in bfloat16, half the bytes: their products would be cast to it
    anyway, and only the gains of their norms are rounded in addition. Embeddings and what is reduced stay float32.

    Names in the state dict stay. Only training and its losses work on the result: features, sampling and probes read
    weights without the all-gather of a forward pass.

    Args:
        transformer: on any device; changed in place, once.
        mesh: of all processes, with the dimensions `data_parallel` and `tensor_parallel`.
        precision: as in Lightning.

    Raises:
        UserError: tensor parallelism is asked for.
    """
    if mesh[TENSOR].size() != 1:
        raise UserError("--trainer.strategy: tensor_parallel_size must be 1; set data_parallel_size to all processes")
    if isinstance(transformer, FSDPModule):
        return
    for module in (*transformer.blocks, transformer.head):
        fully_shard(module, mesh=mesh[DATA], mp_policy=gathered_in(precision))
    for module in (transformer, *others):
        fully_shard(module, mesh=mesh[DATA])
    register_fsdp_forward_method(transformer, "hidden_states")  # training enters there, and calls the head itself


def gathered_in(precision: str) -> MixedPrecisionPolicy:
    """The types in which weights are gathered and gradients reduced; what goes in and out keeps its own."""
    if precision != "bf16-mixed":
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
