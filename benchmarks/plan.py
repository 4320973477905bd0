"""Operations and bytes of the network, counted, and what they mean for a schedule's hours and memory.

    python benchmarks/plan.py

What an H100 of 80 GB does a second is measured (`STEPS`); the rest is counted, and what is assumed is named so.

A multiplication and an addition are two operations. A block's four projections hold 12 D^2 weights, so that an image of
T tokens takes 2 * 12 * L * D^2 * T; attention takes 4 * L * T^2 * D for scores and mixing, of which a causal network
needs half; the head takes 2 * T * D * V. The backward pass is two forward passes. Norms, activations and embeddings are
left out: they are bound by memory and add about one in a hundred operations.

Weights, gradients and Adam's two moments are float32, also under bf16-mixed: 16 bytes a parameter. For the backward
pass a block keeps, for each token and channel and under bf16-mixed (float32 residual stream, bfloat16 products): inputs
of the norms 4 + 4 bytes, of the projections 2 + 2 + 2 + 8, q, k and v 6, the attention's output 2, the activation's
factors 8 + 8: 46. With recompute it keeps its input, 4. The head keeps the logits in bfloat16 and float32 and the
gradient of both, and its inputs. This is counted by hand; compiled blocks keep less, as measured 70 to 74 % of it,
which `image_bytes` takes off.

On several machines a step moves float32 numbers: with DDP an all-reduce of the gradients, 8 bytes a parameter and
device; with FSDP2 two gathers of the weights and a reduce-scatter of the gradients, 12.
"""

from dataclasses import dataclass, replace
from functools import cache

from igpt.model import PRESETS, TransformerConfig, forward_operations, parameter_count
from igpt.system import BF16_PEAKS

TRAINING, RECOMPUTING = 3, 4  # forward and backward, in forward passes; and with the forward pass a second time
PRODUCT = 795e12  # operations a second of a bfloat16 product of 8192^3, measured on an H100 of 80 GB
NARROWER, LARGER = 0.25, 0.5  # assumed shares of it: narrower than S, and larger than L at 32x32
MFU = 0.4  # assumed share of the makers' peaks for other chips
KEPT, INPUT = 46, 4  # bytes a token and channel that a block keeps for the backward pass, and with recompute
DDP_BYTES, FSDP_BYTES = 8, 12  # that a step moves over the network, a parameter and device
LINK = 50e9  # bytes a second and device: one port of 400 Gb/s each
CHIPS = {"A100": (BF16_PEAKS["A100"], 1), "8 A100": (BF16_PEAKS["A100"], 8), "RTX 4090": (BF16_PEAKS["RTX 4090"], 1)}
SPARE = 3 * 2**30  # bytes of a GPU for its context, workspaces and fragments


@dataclass(frozen=True)
class Step:
    """AR training steps on one H100 of 80 GB: bf16-mixed, compiled blocks, fused Adam (torch 2.11, November 2026)."""

    size: str
    batch: int
    images_per_second: float
    gib: float  # at the peak


STEPS = (Step("S", 64, 599, 27.3), Step("S", 128, 612, 53.4), Step("M", 32, 147, 44.8), Step("L", 16, 53, 56.5))


@dataclass(frozen=True)
class Schedule:
    """A training run; `batch` is that of an optimizer step, over all devices. Early stopping may end it before."""

    name: str
    config: TransformerConfig
    batch: int
    iterations: int
    devices: int = 8
    causal: bool = True
    may_stop: bool = False


SCHEDULES = (  # autoregressive pre-training as published (paper, section 3.4)
    Schedule("iGPT-S, 32x32", PRESETS["S"], 128, 1_000_000, devices=1),
    Schedule("iGPT-M, 32x32", PRESETS["M"], 128, 1_000_000),
    Schedule("iGPT-L, 32x32", PRESETS["L"], 128, 1_000_000),
    Schedule("iGPT-L, 48x48", replace(PRESETS["L"], n_positions=48 * 48), 128, 1_000_000),
    Schedule("iGPT-XL, 64x64", PRESETS["XL"], 64, 2_000_000),
)


def training_operations(config: TransformerConfig, causal: bool = True) -> int:
    """Of one image, forward and backward."""
    return TRAINING * forward_operations(config, causal)


def feature_operations(config: TransformerConfig) -> int:
    """Of one image through all blocks, without the head."""
    return forward_operations(config) - 2 * config.n_positions * config.d_model * config.vocab_size


@cache
def parameters(config: TransformerConfig) -> int:
    """Exact number, counted once."""
    return parameter_count(config)


def state_bytes(config: TransformerConfig) -> dict[str, int]:
    """What the parts of training take of the whole network; DDP has all on each device, FSDP2 shares it out."""
    single = 4 * parameters(config)
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


def step_like(config: TransformerConfig) -> Step | None:
    """The measured step of a network of this shape, the one with the largest batch."""
    shape = (config.n_layers, config.d_model, config.n_positions)
    sizes = {name for name, preset in PRESETS.items() if (preset.n_layers, preset.d_model, preset.n_positions) == shape}
    return next((step for step in reversed(STEPS) if step.size in sizes), None)


def utilisation(config: TransformerConfig) -> float:
    """Share of the measured product peak at which an H100 trains this network; assumed where no step was measured."""
    step = step_like(config)
    if step is None:
        return NARROWER if config.d_model < PRESETS["S"].d_model else LARGER
    return training_operations(PRESETS[step.size]) * step.images_per_second / PRODUCT


def measured_image_bytes(step: Step) -> float:
    """What one more image takes; weights, gradients and moments are taken off the measured peak."""
    return (step.gib * 2**30 - sum(state_bytes(PRESETS[step.size]).values())) / step.batch


def image_bytes(config: TransformerConfig, recompute: bool = False) -> float:
    """Kept of one image with compiled blocks: measured, or the count by hand less what these save at least."""
    step = step_like(config)
    if step is not None and not recompute:
        return measured_image_bytes(step)
    kept = max(measured_image_bytes(step) / activation_bytes(PRESETS[step.size], False) for step in STEPS)
    return activation_bytes(config, recompute) * (1 if recompute else kept)


def device_bytes(config: TransformerConfig, images: int, devices: int = 1, recompute: bool = False) -> float:
    """At the peak of a step of `images` on each device, with DDP, or with FSDP2 where one of 80 GB has no room."""
    state = sum(state_bytes(config).values())
    if shared(config):
        state //= devices
    elif devices > 1:
        state += 4 * parameters(config)  # DDP's buckets of gradients
    return state + images * image_bytes(config, recompute)


def shared(config: TransformerConfig) -> bool:
    """Whether weights, gradients and moments have no room on one GPU of 80 GB, so that FSDP2 has to share them out."""
    return sum(state_bytes(config).values()) > room(80)


def room(gigabytes: int) -> int:
    """Bytes that training can use of a GPU of nominal size."""
    return gigabytes * 2**30 - SPARE


def recomputes(plan: Schedule) -> bool:
    """Whether its batch fits GPUs of 80 GB only with recompute."""
    return device_bytes(plan.config, plan.batch // plan.devices, plan.devices) > room(80)


def batch_on(config: TransformerConfig, gigabytes: int) -> int:
    """Images, a power of two, that fit one GPU of this size; 0 where not one does."""
    return max((1 << n for n in range(8) if device_bytes(config, 1 << n) <= room(gigabytes)), default=0)


def memory_table() -> list[list[str]]:
    """Rows of text, the first being the heads; GB are 10^9 bytes."""
    rows = [["model", "parameters", "weights", "gradients", "moments", "all on each GPU", "over 8", "over 64"]]
    rows[0] += ["an image", "an image, recompute"]
    for plan in SCHEDULES:
        parts = state_bytes(plan.config)
        whole = sum(parts.values())
        images = [activation_bytes(plan.config, recompute) for recompute in (False, True)]
        cells = [*parts.values(), whole, whole // 8, whole // 64, *images]
        size = f"{parameters(plan.config) / 1e6:,.0f} M"
        rows.append([plan.name, size, *(f"{count / 1e9:,.2f} GB" for count in cells)])
    return rows


def hours(plan: Schedule, rate: float) -> float:
    """Of the whole schedule at a rate in operations per second, computing alone."""
    passes = RECOMPUTING if recomputes(plan) else TRAINING
    return passes * forward_operations(plan.config, plan.causal) * plan.batch * plan.iterations / rate / 3600


def h100_hours(plan: Schedule, devices: int) -> float:
    """Of the whole schedule on so many H100, each at the rate of one."""
    return hours(plan, devices * PRODUCT * utilisation(plan.config))


def plan_table(cpu_peak: float | None = None) -> list[list[str]]:
    """Rows of text, the first being the heads; with the measured peak of this machine's CPU where it is known."""
    chips = {name: MFU * peak * count for name, (peak, count) in CHIPS.items()}
    if cpu_peak is not None:
        chips["this CPU"] = MFU * cpu_peak
    rows = [["model", "parameters", "operations an image", "images", "of 795 T/s", "H100", "8 H100", *chips]]
    for plan in SCHEDULES:
        size = f"{parameters(plan.config) / 1e6:,.0f} M"
        work = f"{training_operations(plan.config) / 1e12:,.2f} T"
        seen = f"{plan.batch * plan.iterations / 1e6:,.0f} M"
        times = [h100_hours(plan, 1), h100_hours(plan, 8), *(hours(plan, rate) for rate in chips.values())]
        rows.append([plan.name, size, work, seen, share(plan.config), *map(duration, times)])
    return rows


def share(config: TransformerConfig) -> str:
    """The utilisation as text."""
    return f"{100 * utilisation(config):.0f} %" + ("" if step_like(config) else ", assumed")


def card_table(gigabytes: int = 24) -> list[list[str]]:
    """Rows of text, the first being the heads: what one GPU of this size takes of the published schedules."""
    rows = [["model", "weights, gradients, moments", "an image", "batch", "accumulate", "together"]]
    for plan in SCHEDULES:
        sizes = [sum(state_bytes(plan.config).values()), image_bytes(plan.config)]
        batch = batch_on(plan.config, gigabytes)
        fit = ["none", "", ""]
        if batch:
            fit = [str(batch), str(plan.batch // batch), gib(device_bytes(plan.config, batch))]
        rows.append([plan.name, *map(gib, sizes), *fit])
    return rows


def network_table() -> list[list[str]]:
    """Seconds of a step on 64 H100 if it only computed and if it only moved, and on 8 inside one machine."""
    rows = [["model", "images a device", "computing on 64", "moving on 64", "computing on 8", "64 beside 8"]]
    for plan, moved in ((SCHEDULES[2], DDP_BYTES), (SCHEDULES[4], FSDP_BYTES)):
        whole = h100_hours(plan, 1) * 3600 / plan.iterations
        moving = moved * parameters(plan.config) / LINK
        seconds = [whole / 64, moving, whole / 8]
        gain = f"{whole / 8 / max(whole / 64, moving):.1f} x at most"
        rows.append([plan.name, str(plan.batch // 64), *(f"{one:.2g} s" for one in seconds), gain])
    return rows


def gib(count: float) -> str:
    """Bytes as text."""
    return f"{two_digits(count / 2**30)} GiB"


def duration(found: float) -> str:
    """Hours as text; minutes, days or years where that reads better."""
    for limit, unit, name in ((1, 1 / 60, "min"), (72, 1, "h"), (24 * 1000, 24, "d")):
        if found < limit:
            return f"{two_digits(found / unit)} {name}"
    return f"{two_digits(found / 24 / 365.25)} years"


def two_digits(value: float) -> str:
    """Two digits, or all before the point where they are more."""
    return f"{value:.2g}" if value < 99.5 else f"{value:,.0f}"


if __name__ == "__main__":
    for table in (plan_table(), memory_table(), card_table(), network_table()):
        for line in table:
            print("  ".join(cell.rjust(20) for cell in line))
