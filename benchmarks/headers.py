"""The lines about GPUs that the headers of configs repeat, by the arithmetic of plan.py; a test compares them.

python benchmarks/headers.py
"""

from pathlib import Path
from typing import Any

import yaml
from plan import Schedule, batch_on, device_bytes, duration, gib, h100_hours, recomputes, shared, step_like, utilisation

from igpt.model import TransformerConfig
from igpt.parsing import config_name

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CARD = 24  # GB of a large consumer GPU
CONFIG_OF = {config_name(path): path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "scale"}
LONG = 24  # hours on one GPU from which on eight are worth a word


def schedule_of(path: Path) -> Schedule:
    """The run that a config describes; a joint one has the network of the pre-training that it names."""
    content = yaml.safe_load(path.read_text())
    trainer, devices = content["trainer"], content["trainer"].get("devices", 1)
    batch = devices * content["data"]["init_args"]["batch_size"]
    model = generative(content["model"])
    network = TransformerConfig.of(model["init_args"]["transformer"])
    causal = not model["class_path"].endswith("BERT")
    may_stop = any(one["class_path"].endswith("EarlyStopping") for one in trainer.get("callbacks", []))
    return Schedule(config_name(path), network, batch, trainer["max_steps"], devices, causal, may_stop)


def generative(model: dict[str, Any]) -> dict[str, Any]:
    """The AR or BERT model of a config, or that inside a joint one."""
    options = model["init_args"]
    if "pretrained" in options:
        name = Path(options["pretrained"]).parents[1].name
        return generative(yaml.safe_load(CONFIG_OF[name].read_text())["model"])
    return options.get("generative", model)


def gpu_lines(plan: Schedule) -> list[str]:
    """How long the run takes on H100, and with which batch it fits a GPU of 24 GB."""
    lines = [f"Expected: {times(plan)}; computed at {basis(plan)}."]
    if recomputes(plan) and not shared(plan.config):
        lines.append("The batch fits only with recompute (computed), which is on.")
    batch = min(batch_on(plan.config, CARD), plan.batch)
    if batch == plan.batch:
        lines.append(f"It takes {gib(device_bytes(plan.config, batch))}, computed.")
    elif batch:
        one = "--trainer.devices 1 " if plan.devices > 1 else ""
        sizes = f"--data.init_args.batch_size {batch} --trainer.accumulate_grad_batches {plan.batch // batch}"
        lines.append(f"On {CARD} GB: {one}{sizes} ({gib(device_bytes(plan.config, batch))}, computed).")
    return lines


def times(plan: Schedule) -> str:
    """Hours on one H100 and on eight; on one only where they are few, on eight only where one has no room."""
    one, eight = (duration(h100_hours(plan, devices)) for devices in (1, 8))
    found = f"{one} on one H100" if h100_hours(plan, 1) < LONG else f"{one} on one H100, {eight} on eight"
    if shared(plan.config):
        found = f"{eight} on eight H100 that share the weights and recompute"
    elif recomputes(plan):
        found += ", recomputing"
    return f"at most {found}" if plan.may_stop else found


def basis(plan: Schedule) -> str:
    """Where the operations a second come from."""
    source = "AR's measured" if not plan.causal else "the measured"
    if step_like(plan.config) is None:
        source = "an assumed"
    return f"{source} {100 * utilisation(plan.config):.0f} % of its 795 TFLOP/s"


if __name__ == "__main__":
    for path in CONFIG_OF.values():
        if "GPU" in path.read_text():
            print(config_name(path), *gpu_lines(schedule_of(path)), sep="\n  ")
