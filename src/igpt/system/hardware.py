"""What this machine is good at: device, precision, threads. Nothing else in igpt asks torch about capabilities.

torch is imported by the functions that need it, since `wait_briefly` has to run before that.
"""

import ctypes
import os
import re
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from igpt.system.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]  # as options; "auto" is resolved by `compute_of`
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
MIXED = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}  # autocast's type
SPINS = "10000"  # turns of libgomp's waiting loop, about 0.3 ms; its default of 300,000 is 10 ms
BLOCKTIME = "1"  # ms; the same of Intel's and LLVM's OpenMP, whose default is 200
WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
SCOUT, SIZE = 96, 256  # sides of the products that are timed: a small one first, since emulation is slow
ROUNDS = 8
CLEAR = 6.0  # times slower in the small product (below 2 with the instructions, above 20 without): that is enough
WORTH = 0.8  # of float32's time: up to here bfloat16 products pay for the casts around them
RATIO = "IGPT_CPU_BF16_RATIO"  # the measured ratio, handed to processes that this one starts
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
BF16_PEAKS = {  # makers' dense bfloat16 operations a second, by a part of a card's name
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "RTX 4090": 165e12,
}  # fmt: skip
LESS = r"Laptop|MIG|D\b"  # of a card of that name
LARGEST, LARGEST_FORMERLY = 2**31 - 1, 32 << 20  # bytes that mallopt takes; as MMAP_THRESHOLD up to glibc 2.34 or so


@dataclass(frozen=True)
class Compute:
    """Where a network runs, and how."""

    device: str  # cpu, cuda or mps
    precision: str  # as in Lightning, never "auto"
    reason: str = ""  # for a precision that the user did not choose

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the network's forward pass runs, where Lightning is not there to make one."""
        import torch

        if self.precision not in MIXED:
            return nullcontext()
        return torch.autocast(self.device, dtype=getattr(torch, MIXED[self.precision]))


def bf16_peak(name: str) -> float | None:
    """Dense bfloat16 operations a second of the CUDA card of that name, as its maker says; None where unknown."""
    return next((peak for part, peak in BF16_PEAKS.items() if re.search(rf"\b{part}\b(?!.*({LESS}))", name)), None)


def compute_of(
    accelerator: str, precision: str, work: Literal["products", "pixels"] = "products", option: str = "--"
) -> Compute:
    """Resolve "auto" to what this machine does quickest; a precision that the user names stands.

    Args:
        accelerator, precision: as in Lightning.
        work: "products" of whole sequences, as in training; or "pixels" drawn one after another, where a CPU reads
            weights far more than it multiplies, and casts cost more than bfloat16 saves.
        option: what stands before "accelerator" and "precision" on the command line, for errors.

    Raises:
        UserError: see `device_of`; or the device has no such precision.
    """
    device = device_of(accelerator, option)
    if precision == "16-mixed" and device != "cuda":
        raise UserError(f"{option}precision 16-mixed needs an NVIDIA GPU, and this runs on {device}; use auto")
    if precision != "auto":
        return Compute(device, precision)
    if device == "cpu" and work == "pixels":
        return Compute(device, "32-true", "pixel by pixel, a CPU gains nothing from bfloat16")
    if device == "mps":
        return Compute(device, "32-true", "the safe choice on Apple's GPUs")
    return Compute(device, *(precision_on_cuda() if device == "cuda" else precision_on_cpu()))


def device_of(accelerator: str, option: str = "--") -> str:
    """The device, "cpu", "cuda" or "mps", of an accelerator's name; a UserError where there is none of it here."""
    if accelerator not in ACCELERATORS:
        raise UserError(f"{option}accelerator {accelerator}; choose from {', '.join(ACCELERATORS)}")
    present: dict[str, Callable[[], bool]] = {"cuda": has_cuda, "mps": has_mps, "cpu": lambda: True}
    wanted = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(accelerator, (accelerator,))
    for device in wanted:
        if present[device]():
            return device
    kind = "Apple GPU" if accelerator == "mps" else "GPU"
    raise UserError(f"{option}accelerator {accelerator}: PyTorch sees no {kind} here; use cpu")


@cache
def has_cuda() -> bool:
    """Whether PyTorch can use an NVIDIA GPU. One that is there but cannot be used is one warning, once."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available and (caught or has_nvidia_driver()):
        why = " ".join(str(warning.message) for warning in caught)
        if torch.version.cuda is None:
            why = "this PyTorch is built without CUDA"
        why = why or "update its driver, or install a PyTorch for its version of CUDA"
        warnings.warn(f"there is an NVIDIA GPU, but PyTorch cannot use it, so the CPU is used: {why}", stacklevel=2)
    return available


def free_memory(device: str) -> float:
    """Bytes that may still be taken on a device now; infinite where nothing can be asked."""
    if device == "cuda":
        import torch

        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # by torch, for its next tensors
        return float(torch.cuda.mem_get_info()[0] + kept)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), float("inf"))
    except OSError:
        return float("inf")


def has_nvidia_driver() -> bool:
    """Whether a GPU's driver is loaded, by the files that Linux shows of it; False on other systems."""
    return Path("/proc/driver/nvidia/gpus").is_dir() and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def has_mps() -> bool:
    """Whether PyTorch can use an Apple GPU."""
    import torch

    return torch.backends.mps.is_available()


def precision_on_cuda() -> tuple[str, str]:
    """bfloat16 where the card multiplies it natively, float16 where only that has tensor cores (V100, T4)."""
    import torch

    name, (major, _) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed", f"{name} multiplies bfloat16 natively"
    if major >= 7:
        return "16-mixed", f"{name} has no bfloat16, but tensor cores for float16"
    return "32-true", f"{name} has tensor cores for neither bfloat16 nor float16"


def precision_on_cpu() -> tuple[str, str]:
    """bfloat16 where its products are quicker than float32's, by a measurement."""
    ratio = bf16_ratio()
    if ratio <= WORTH:
        return "bf16-mixed", f"this CPU multiplies bfloat16 {1 / ratio:.1f} times as fast as float32"
    if ratio < 1.2:
        return "32-true", "this CPU multiplies bfloat16 no faster than float32"
    return "32-true", f"this CPU multiplies bfloat16 {ratio:.0f} times slower than float32"


@cache
def bf16_ratio() -> float:
    """Time of a bfloat16 product on this CPU over that of a float32 product; takes 5 to 30 ms, once.

    Processes that this one starts find the ratio in their environment, so that all of a run agree.
    """
    if RATIO not in os.environ:
        ratio = time_ratio(SCOUT)
        if ratio < CLEAR:  # beyond, a product of the full size would take 50 ms to say the same
            ratio = time_ratio(SIZE)
        os.environ[RATIO] = f"{ratio:.3g}"
    return float(os.environ[RATIO])


def time_ratio(side: int) -> float:
    """The ratio of the quickest of a few products of square matrices, in one thread, so that load does not matter."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        factors = [torch.ones(side, side, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)]
        rounds = [[seconds_of(factor) for factor in factors] for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    narrow, wide = (min(times[1:]) for times in zip(*rounds, strict=True))  # the first makes things ready
    return float(narrow / wide)


def seconds_of(factor: "torch.Tensor") -> float:
    """Seconds of one product with itself."""
    started = time.perf_counter()
    factor @ factor
    return time.perf_counter() - started


def cpu_kind() -> str:
    """Widest vectors that PyTorch computes with on this CPU: "avx2", "avx512", "default" and others."""
    import torch

    return torch.backends.cpu.get_cpu_capability().lower()


def allow_tf32(allowed: bool) -> None:
    """Whether float32 products on CUDA may round their factors to TF32's 10 bits, which is several times as fast."""
    import torch

    torch.set_float32_matmul_precision("high" if allowed else "highest")


def has_onednn() -> bool:
    """Whether PyTorch was built with oneDNN, and has its product for packed weights."""
    import torch

    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def wait_briefly() -> None:
    """Have OpenMP's threads sleep while they wait, unless the user has set how; call it before torch is imported.

    By default they spin for 10 ms, which beside other busy processes makes all of them two to three times as slow.
    """
    if WAITING.isdisjoint(os.environ):
        os.environ["GOMP_SPINCOUNT"] = SPINS
        os.environ["KMP_BLOCKTIME"] = BLOCKTIME


def fall_back_to_cpu() -> None:
    """Have operations that PyTorch lacks on Apple's GPU run on the CPU; call it before torch is imported."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks in the process, for commands that run a network on a CPU; elsewhere do nothing.

    glibc returns blocks of some size to the kernel at once, which then hands out the next one page by page, each
    cleared: on small machines that took longer than the arithmetic (docs/performance.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, musl, Windows
        return
    for option in (TRIM_THRESHOLD, MMAP_THRESHOLD):
        if not mallopt(option, LARGEST):  # a refused threshold would stay small: glibc has stopped adjusting it by then
            mallopt(option, LARGEST_FORMERLY)
