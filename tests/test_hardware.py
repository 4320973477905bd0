"""What igpt finds out about the machine that it runs on, and what it makes of it."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from igpt.system import hardware
from igpt.system.errors import UserError
from igpt.system.hardware import Compute, compute_of, device_of

OLD_CPU = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
CHOSEN = "from igpt.system.hardware import compute_of; print(compute_of('cpu', 'auto').precision)"


@pytest.fixture(autouse=True)
def _nothing_known_yet(monkeypatch):
    monkeypatch.setenv(hardware.RATIO, "1")  # so that it is put back afterwards
    monkeypatch.delenv(hardware.RATIO)
    hardware.bf16_ratio.cache_clear()
    hardware.has_cuda.cache_clear()
    yield
    hardware.bf16_ratio.cache_clear()
    hardware.has_cuda.cache_clear()


def python(code, **environment):
    """What a process of its own prints."""
    own = {hardware.RATIO, *hardware.WAITING, *OLD_CPU}  # what another CPU, or the suite, may have set
    clean = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def card(monkeypatch):
    """Makes PyTorch see an NVIDIA GPU, as far as asking it goes: `card("Tesla T4", (7, 5), bf16=False)`."""

    def plug_in(name, capability, bf16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )

    return plug_in


def test_a_cpu_that_only_emulates_bfloat16_trains_in_float32():
    assert python(CHOSEN, **OLD_CPU) == "32-true"


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this CPU has no bfloat16")
def test_a_cpu_with_bfloat16_instructions_trains_in_bfloat16():
    assert python(CHOSEN) == "bf16-mixed"


def test_the_precision_is_that_of_the_quicker_product(monkeypatch):
    for ratio, precision, words in [
        (0.4, "bf16-mixed", "2.5 times as fast as float32"),
        (1.0, "32-true", "no faster than float32"),
        (12.0, "32-true", "12 times slower than float32"),
    ]:
        monkeypatch.setenv(hardware.RATIO, str(ratio))
        hardware.bf16_ratio.cache_clear()
        chosen = compute_of("cpu", "auto")
        assert chosen.precision == precision
        assert words in chosen.reason


def test_products_are_timed_once_and_processes_started_later_know_the_result(monkeypatch):
    ratio, timed = hardware.bf16_ratio(), []
    monkeypatch.setattr(hardware, "time_ratio", timed.append)
    assert hardware.bf16_ratio() == ratio
    hardware.bf16_ratio.cache_clear()  # as another process, which has the same environment
    assert hardware.bf16_ratio() == ratio
    assert not timed


def test_timing_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    hardware.bf16_ratio()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_named_precision_stands():
    assert compute_of("cpu", "bf16-mixed") == Compute("cpu", "bf16-mixed")


def test_pixel_by_pixel_a_cpu_draws_in_float32():
    assert compute_of("cpu", "auto", work="pixels").precision == "32-true"


def test_float16_without_a_gpu_is_refused():
    with pytest.raises(UserError, match="--precision 16-mixed needs an NVIDIA GPU"):
        compute_of("cpu", "16-mixed")


@pytest.mark.parametrize(
    ("name", "capability", "bf16", "precision"),
    [
        ("NVIDIA H100", (9, 0), True, "bf16-mixed"),
        ("Tesla T4", (7, 5), False, "16-mixed"),  # PyTorch would emulate bfloat16
        ("Tesla V100", (7, 0), False, "16-mixed"),
        ("Tesla P100", (6, 0), False, "32-true"),
    ],
)
def test_a_card_trains_in_what_it_multiplies_natively(card, name, capability, bf16, precision):
    card(name, capability, bf16)
    for accelerator in ("auto", "gpu", "cuda"):
        chosen = compute_of(accelerator, "auto")
        assert (chosen.device, chosen.precision) == ("cuda", precision)
        assert name in chosen.reason


def test_without_a_gpu_asking_for_one_is_refused_and_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device_of("auto") == device_of("cpu") == "cpu"
    for accelerator in ("gpu", "cuda", "mps"):
        with pytest.raises(UserError, match=f"--accelerator {accelerator}: PyTorch sees no"):
            device_of(accelerator)
    with pytest.raises(UserError, match=r"--trainer\.accelerator tpu; choose from auto, cpu, gpu, cuda, mps"):
        device_of("tpu", option="--trainer.")


def test_on_a_mac_auto_gpu_and_mps_are_its_gpu_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert {device_of(accelerator) for accelerator in ("auto", "gpu", "mps")} == {"mps"}
    assert compute_of("mps", "auto").precision == "32-true"
    with pytest.raises(UserError, match="--accelerator cuda"):
        device_of("cuda")


def test_a_gpu_that_pytorch_cannot_use_is_one_warning(monkeypatch):
    def too_old():
        warnings.warn("The NVIDIA driver on your system is too old (found version 11040).", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", too_old)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.warns(UserWarning, match="so the CPU is used: The NVIDIA driver on your system is too old"):
        assert device_of("auto") == "cpu"
    assert device_of("auto") == "cpu"  # a second warning would be an error


def test_a_pytorch_without_cuda_beside_a_gpu_is_one_warning(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(hardware, "has_nvidia_driver", lambda: True)
    with pytest.warns(UserWarning, match="this PyTorch is built without CUDA"):
        assert device_of("auto") == "cpu"


def test_tf32_is_switched_on_and_off():
    before = torch.get_float32_matmul_precision()
    try:
        hardware.allow_tf32(True)
        assert torch.get_float32_matmul_precision() == "high"
        hardware.allow_tf32(False)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_is_on_in_mixed_precision_only():
    with Compute("cpu", "bf16-mixed").autocast():
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    with Compute("cpu", "32-true").autocast():
        assert not torch.is_autocast_enabled("cpu")


def test_looking_at_the_machine_begins_before_torch_is_imported():
    code = """
import os, sys
import igpt.cli
assert "torch" not in sys.modules
igpt.cli.main(["probe"])
print(os.environ["GOMP_SPINCOUNT"], os.environ["KMP_BLOCKTIME"], "torch" in sys.modules)"""
    assert python(code) == f"{hardware.SPINS} {hardware.BLOCKTIME} True"


@pytest.mark.parametrize("name", sorted(hardware.WAITING))
def test_a_users_own_way_of_waiting_stands(monkeypatch, name):
    monkeypatch.setattr(os, "environ", {name: "own"})
    hardware.wait_briefly()
    assert os.environ == {name: "own"}


def test_cuda_is_asked_about_float32_by_the_commands_alone(card):
    card("NVIDIA H100", (9, 0), True)
    assert compute_of("auto", "32-true") == Compute("cuda", "32-true")


def test_nothing_else_asks_torch_about_capabilities():
    asking = ("is_available()", "get_device_capability", "is_bf16_supported", "cpu_capability", "_is_avx", "_is_amx")
    here = Path(hardware.__file__)
    found = [(path.name, words) for path in here.parent.rglob("*.py") for words in asking if words in path.read_text()]
    assert {name for name, _ in found} == {here.name}, found
