"""The model card of an export: what it is, how it was trained and scored, how to load it."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from igpt import __version__
from igpt.model import TransformerConfig, parameter_count
from igpt.report.leaving import attempt, warn
from igpt.report.origins import options
from igpt.report.reading import every_probe, read_aside, read_scores
from igpt.report.records import Probe, Score
from igpt.report.text import code, escape, fence
from igpt.system import sha256_of

FRONT = """---
library_name: {library}
tags:
- imagegpt
- image-generation
- igpt
---
"""
USE_HUGGINGFACE = """The sequence begins with a start-of-sequence token, {sos}; output i then predicts pixel i.
Without it every pixel stands one position early, and losses and features are others than those above.

```python
import torch
from transformers import ImageGPTForCausalImageModeling, ImageGPTImageProcessor

processor = ImageGPTImageProcessor.from_pretrained("PATH OF THIS FOLDER")
model = ImageGPTForCausalImageModeling.from_pretrained("PATH OF THIS FOLDER").eval()
tokens = processor(image, return_tensors="pt").input_ids            # (1, {positions})
start = torch.full((1, 1), {sos})
logits = model(torch.cat([start, tokens[:, :-1]], 1)).logits         # output i is the distribution of pixel i
drawn = model.generate(start, max_length={positions} + 1, do_sample=True, top_k=0)[:, 1:]
```

Back to igpt: `igpt import --path FOLDER --out X.ckpt`."""
USE_CHECKPOINT = """`igpt probe --ckpt model.ckpt`, and so on; or as `start_from` or `pretrained` of a new run."""
USE_OWN = """```python
import json
from safetensors.torch import load_file
from igpt.modules import PixelModule
from igpt.checkpoints.spec import build

module = build(json.load(open("igpt.json"))["model"], PixelModule, {"igpt"})
module.load_state_dict(load_file("model.safetensors"))
```"""


@dataclass(frozen=True)
class Facts:
    """What the card is made of.

    Args:
        name: of the run, or of the checkpoint where it lies in no run.
        ckpt: the file.
        header: model and data as plain data, and the step.
        core: description of the generative module.
        format: huggingface, safetensors or checkpoint.
        commands: lines of the run's commands.txt that trained it.
        scores: what `validate` and `test` found at this step.
        probes: what `igpt probe` found of this file; of this step, where a probe.json does not say of which file.
        aside: the same of earlier probes, which later ones on other data or with other options moved aside.
    """

    name: str
    ckpt: str
    header: dict[str, Any]
    core: dict[str, Any]
    format: str
    commands: list[str]
    scores: list[Score]
    probes: list[Probe]
    aside: list[Probe]

    @classmethod
    def of(cls, ckpt: str, header: dict[str, Any], core: dict[str, Any], format: str) -> "Facts":
        """Look beside the checkpoint for what is known of its run; a record that is broken is left out and said."""
        path = Path(ckpt).absolute()
        if path.parent.name != "checkpoints":
            return cls(path.stem, ckpt, header, core, format, [], [], [], [])
        run, step = path.parent.parent, header["step"]
        scores: list[Score] = attempt(partial(read_scores, run / "scores.json", warn), warn, [])
        lines = (
            (run / "commands.txt").read_text(encoding="utf-8", errors="replace").splitlines()
            if (run / "commands.txt").is_file()
            else []
        )
        return cls(
            run.name,
            ckpt,
            header,
            core,
            format,
            [line for line in lines if line.startswith("igpt fit")],
            [score for score in scores if score.step == step and score.checkpoint == path.name],
            of_checkpoint(every_probe(run, warn), path, step),
            of_checkpoint(read_aside(run, warn), path, step),
        )


def of_checkpoint(probes: list[Probe], ckpt: Path, step: int) -> list[Probe]:
    """Those of this very checkpoint, as far as they say; early ones hold its step, but no checksum."""
    ours = [probe for probe in probes if probe.step == step]
    checksum = sha256_of(ckpt) if ckpt.is_file() and any(probe.checkpoint_sha256 for probe in ours) else None
    return [probe for probe in ours if probe.checkpoint_sha256 in (None, checksum)]


def model_card(facts: Facts) -> str:
    """The card, as Markdown with the hub's front matter."""
    config = TransformerConfig.of(facts.core["init_args"]["transformer"])
    sizes = {"sos": config.vocab_size, "positions": config.n_positions}
    use = {"huggingface": USE_HUGGINGFACE.format(**sizes), "checkpoint": USE_CHECKPOINT}.get(facts.format, USE_OWN)
    library = "transformers" if facts.format == "huggingface" else "igpt"
    parts = [
        FRONT.format(library=library) + f"# {escape(facts.name)}",
        f"A transformer over palette tokens, after *Generative Pretraining from Pixels* (Chen et al., ICML 2020). "
        f"Written by igpt {__version__} from {code(facts.ckpt)}.",
        "## Model",
        model_table(facts, config),
        "## How it was trained",
        training(facts),
        "## How it was scored",
        scoring(facts),
        "## How to load it",
        use,
    ]
    return "\n\n".join(parts) + "\n"


def rows(pairs: list[tuple[str, object]]) -> str:
    """Two columns as a Markdown table; names are Markdown, values text."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {escape(str(value))} |" for name, value in pairs)])


def model_table(facts: Facts, config: TransformerConfig) -> str:
    """Kind and sizes."""
    side = round(config.n_positions**0.5)
    kind = short(facts.core)
    whole = short(facts.header["model"])
    return rows(
        [
            ("objective", kind if kind == whole else f"{whole} on {kind}"),
            ("layers, width, heads", f"{config.n_layers}, {config.d_model}, {config.n_heads}"),
            ("images", f"{side}x{side}, {facts.core['init_args'].get('order', 'raster')} order"),
            ("colours", config.vocab_size),
            ("parameters", f"{parameter_count(config):,}"),
        ]
    )


def training(facts: Facts) -> str:
    """Steps, recipe, data and command lines, as far as they are known."""
    model, data = facts.header["model"], facts.header["data"]
    if data is None and facts.header["step"] == 0:
        return "Not with igpt: these weights were imported, and what they were trained on is not in the file."
    recipe = ("learning_rate", "betas", "weight_decay", "warmup_steps", "generative_weight", "mask_share")
    given = model["init_args"]
    found: list[tuple[str, object]] = [("optimizer steps", f"{facts.header['step']:,}")]
    found += [(name, given[name]) for name in recipe if given.get(name) is not None]
    parts = [rows(found)]
    if data is not None:
        arguments = json.dumps(data.get("init_args", {}), indent=2)
        parts += [f"Data: {code(data['class_path'])} with", fence(arguments.split("\n"), "json")]
    if facts.commands:
        parts.append(fence(facts.commands))
    return "\n\n".join(parts)


def scoring(facts: Facts) -> str:
    """Losses and accuracies at this step."""
    found: list[tuple[str, object]] = []
    for score in facts.scores:
        where = f" on {score.data.label}" if score.data else ""
        found += [(escape(f"{name}{where}"), f"{value:.4f}") for name, value in sorted(score.metrics.items())]
    for probe in facts.probes:
        found.append(probed(f"linear probe ({probe.method})", probe))
    for probe in facts.aside:
        found.append(probed(f"earlier probe in {probe.folder.name} ({probe.method}; {options(probe)})", probe))
    if not found:
        again = code(f"igpt probe --ckpt {facts.ckpt}")
        return f"Not yet: `igpt test` and {again} do it, and a new export has the figures."
    return rows(found) + "\n\nLosses are in nats per pixel, over palette tokens; accuracies are shares of 1."


def probed(name: str, probe: Probe) -> tuple[str, str]:
    """A row about one probe."""
    best = f"{probe.result.best.test:.4f} at layer {probe.result.best_layer}"
    return escape(f"{name}, test accuracy on {probe.data.label}"), best


def short(spec: dict[str, Any]) -> str:
    """Class name of a specification."""
    return str(spec["class_path"]).rpartition(".")[2]
