"""The device that these tests hold to the CPU.

`make test-gpu` takes the GPU that is there. `IGPT_TEST_DEVICE=cpu` puts the CPU in its place, which shows on any
machine that these tests run; all other runs of the suite see no GPU and skip them.
"""

import os

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may add in another order each time

PRESENT = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
ACCELERATOR = {"cuda": "gpu", "mps": "mps", "cpu": "cpu"}


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    asked = os.environ.get("IGPT_TEST_DEVICE", "none")
    names = ["cuda", "mps"] if asked == "auto" else [asked]
    found = next((name for name in names if name in PRESENT and PRESENT[name]()), None)
    if found is None:
        pytest.skip("no GPU")
    return torch.device(found)


@pytest.fixture(scope="session")
def accelerator(device: torch.device) -> str:
    """The device by Lightning's name, for the commands."""
    return ACCELERATOR[device.type]


@pytest.fixture(autouse=True)
def _exact_float32():
    """Products of float32 keep all their digits; what a command does about that lasts as long as its test."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)
    torch.use_deterministic_algorithms(False)
