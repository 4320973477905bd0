"""Operations and bytes of the network, counted, and what they mean for the paper's schedules. Nothing here is measured.

    python benchmarks/plan.py

A multiplication and an addition are two operations. A block's four projections hold 12 D^2 weights, so that an image of
T tokens takes 2 * 12 * L * D^2 * T; attention takes 4 * L * T^2 * D for scores and mixing, of which a causal network
needs half; the head takes 2 * T * D * V. The backward pass is two forward passes. Norms, activations and embeddings are
left out: they are bound by memory and add about one in a hundred operations.

Weights, gradients and Adam's two moments are float32, also under bf16-mixed: 16 bytes a parameter. For the backward
pass a block keeps, for each token and channel and under bf16-mixed (float32 residual stream, bfloat16 products): inputs
of the norms 4 + 4 bytes, of the projections 2 + 2 + 2 + 8, q, k and v 6, the attention's output 2, the activation's
factors 8 + 8: 46. With recompute it keeps its input, 4. The head keeps the logits in bfloat16 and float32 and the
gradient of both, and its inputs. (Counted by hand, operation by operation; what fused kernels and `compile` keep less
is not taken off.)

On several machines a step moves float32 numbers: with DDP an all-reduce of the gradients, 8 bytes a parameter and
device; with FSDP2 two gathers of the weights and a reduce-scatter of the gradients, 12.
"""

from dataclasses import dataclass, replace

from igpt.transformer import PRESETS, TransformerConfig, parameter_count

MFU = 0.4  # share of the peak that is assumed; well-kept training runs of transformers reach 0.3 to 0.5
TRAINING = 3  # forward and backward, in forward passes
KEPT, INPUT = 46, 4  # bytes a token and channel that a block keeps for the backward pass, and with recompute
DDP_BYTES, FSDP_BYTES = 8, 12  # that a step moves over the network, a parameter and device
LINK = 50e9  # bytes a second and device: one port of 400 Gb/s each
CHIPS = {
    "H100": (989e12, 1),
    "8 H100": (989e12, 8),
    "A100": (312e12, 1),
    "8 A100": (312e12, 8),
    "RTX 4090": (165e12, 1),
}


@dataclass(frozen=True)
class Schedule:
    """Autoregressive pre-training as published (paper, section 3.4)."""

    name: str
    config: TransformerConfig
    batch: int
    iterations: int


SCHEDULES = (
    Schedule("iGPT-S, 32x32", PRESETS["S"], 128, 1_000_000),
    Schedule("iGPT-M, 32x32", PRESETS["M"], 128, 1_000_000),
    Schedule("iGPT-L, 32x32", PRESETS["L"], 128, 1_000_000),
    Schedule("iGPT-L, 48x48", replace(PRESETS["L"], n_positions=48 * 48), 128, 1_000_000),
    Schedule("iGPT-XL, 64x64", PRESETS["XL"], 64, 2_000_000),
)


def forward_operations(config: TransformerConfig, causal: bool = True) -> int:
    """Of one image through the whole network, head included."""
    tokens, depth, width = config.n_positions, config.n_layers, config.d_model
    projections = 2 * 12 * depth * width**2 * tokens
    attention = 4 * depth * tokens**2 * width // (2 if causal else 1)
    return projections + attention + 2 * tokens * width * config.vocab_size


def training_operations(config: TransformerConfig, causal: bool = True) -> int:
    """Of one image, forward and backward."""
    return TRAINING * forward_operations(config, causal)


def feature_operations(config: TransformerConfig) -> int:
    """Of one image through all blocks, without the head."""
    return forward_operations(config) - 2 * config.n_positions * config.d_model * config.vocab_size


def state_bytes(config: TransformerConfig) -> dict[str, int]:
    """What the parts of training take of the whole network; DDP has all on each device, FSDP2 shares it out."""
    single = 4 * parameter_count(config)
    return {"weights": single, "gradients": single, "moments": 2 * single}


def block_bytes(config: TransformerConfig) -> int:
    """Kept of one image for one block's backward pass, under bf16-mixed and without compile."""
    return KEPT * config.d_model * config.n_positions


def activation_bytes(config: TransformerConfig, recompute: bool) -> int:
    """Kept of one image for the whole backward pass, at its peak."""
    around = config.n_positions * (2 * (2 + 4) * config.vocab_size + (4 + 2) * config.d_model)
    if not recompute:
        return config.n_layers * block_bytes(config) + around
    return config.n_layers * INPUT * config.d_model * config.n_positions + block_bytes(config) + around


def memory_table() -> list[list[str]]:
    """Rows of text, the first being the heads; GB are 10^9 bytes."""
    rows = [["model", "parameters", "weights", "gradients", "moments", "all on each GPU", "over 8", "over 64"]]
    rows[0] += ["an image", "an image, recompute"]
    for plan in SCHEDULES:
        parts = state_bytes(plan.config)
        whole = sum(parts.values())
        images = [activation_bytes(plan.config, recompute) for recompute in (False, True)]
        cells = [*parts.values(), whole, whole // 8, whole // 64, *images]
        size = f"{parameter_count(plan.config) / 1e6:,.0f} M"
        rows.append([plan.name, size, *(f"{count / 1e9:,.2f} GB" for count in cells)])
    return rows


def hours(schedule: Schedule, peak: float, mfu: float = MFU) -> float:
    """Of the whole schedule at a peak in operations per second."""
    return training_operations(schedule.config) * schedule.batch * schedule.iterations / (peak * mfu) / 3600


def plan_table(cpu_peak: float | None = None) -> list[list[str]]:
    """Rows of text, the first being the heads; with the measured peak of this machine's CPU where it is known."""
    chips = {name: peak * count for name, (peak, count) in CHIPS.items()}
    if cpu_peak is not None:
        chips["this CPU"] = cpu_peak
    rows = [["model", "parameters", "operations an image", "images", *chips]]
    for plan in SCHEDULES:
        size = f"{parameter_count(plan.config) / 1e6:,.0f} M"
        work = f"{training_operations(plan.config) / 1e12:,.2f} T"
        seen = f"{plan.batch * plan.iterations / 1e6:,.0f} M"
        rows.append([plan.name, size, work, seen, *(duration(hours(plan, peak)) for peak in chips.values())])
    return rows


def network_table() -> list[list[str]]:
    """Seconds of a step on 64 H100 if it only computed and if it only moved, and on 8 inside one machine."""
    rows = [["model", "images a device", "computing on 64", "moving on 64", "computing on 8", "64 beside 8"]]
    for plan, moved in ((SCHEDULES[2], DDP_BYTES), (SCHEDULES[4], FSDP_BYTES)):
        whole = training_operations(plan.config) * plan.batch / (CHIPS["H100"][0] * MFU)
        moving = moved * parameter_count(plan.config) / LINK
        seconds = [whole / 64, moving, whole / 8]
        gain = f"{whole / 8 / max(whole / 64, moving):.1f} x at most"
        rows.append([plan.name, str(plan.batch // 64), *(f"{one:.2g} s" for one in seconds), gain])
    return rows


def duration(found: float) -> str:
    """Hours as text, days or years where that reads better."""
    if found < 72:
        return f"{found:,.0f} h"
    return f"{found / 24:,.0f} d" if found < 24 * 1000 else f"{found / 24 / 365.25:,.0f} years"


if __name__ == "__main__":
    for table in (plan_table(), memory_table(), network_table()):
        for line in table:
            print("  ".join(cell.rjust(20) for cell in line))
