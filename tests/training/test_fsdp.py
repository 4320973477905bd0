"""What FSDP2 gathers: in a group of one process, which is sharded as one of many."""

import lightning.pytorch as pl
import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from igpt.model import TransformerConfig
from igpt.modules import BERT, Autoregressive, Joint

CONFIG = TransformerConfig(2, 16, 2, 16, 7)


@pytest.fixture
def mesh(tmp_path):
    """A group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    distributed.destroy_process_group()


def joint():
    return Joint(num_classes=3, generative=BERT(TransformerConfig(2, 16, 2, 16, 7, sos=False)).spec())


@pytest.mark.parametrize("make", [lambda: Autoregressive(CONFIG), joint], ids=["AR", "joint"])
@pytest.mark.parametrize(("precision", "gathered"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_blocks_and_head_are_gathered_in_the_type_of_their_products_and_embeddings_in_float32(
    mesh, make, precision, gathered
):
    module = make()
    module.trainer = pl.Trainer(precision=precision, accelerator="cpu", logger=False, enable_checkpointing=False)
    module._device_mesh = mesh
    module.configure_model()
    core, found = module.core, {}

    network = core.transformer  # inside of a block its weights are whole
    fc = network.blocks[1].mlp.fc
    fc.register_forward_pre_hook(lambda *_: found.update(block=fc.weight.dtype, embedding=network.wte.weight.dtype))
    network.blocks[1].register_forward_pre_hook(lambda _, inputs: found.update(residual=inputs[0].dtype))
    network.head.register_forward_pre_hook(lambda *_: found.update(head=network.head.weight.dtype))
    tokens = torch.randint(7, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        network(tokens, causal=core.causal).float().sum().backward()
    assert found == {"block": gathered, "head": gathered, "embedding": torch.float32, "residual": torch.float32}
    assert {weight.grad.dtype for weight in network.parameters() if weight.grad is not None} == {torch.float32}
