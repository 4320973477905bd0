"""The model card of an export: what it is, how it was trained and scored, how to load it."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from igpt import __version__
from igpt.model import TransformerConfig, parameter_count
from igpt.report.page import escape, render
from igpt.report.reading import attempt, every_probe, read_aside, read_scores, read_text, warn
from igpt.report.schema import Probe, Score
from igpt.report.tables import options
from igpt.system import sha256_of

RECIPE = ("learning_rate", "betas", "weight_decay", "warmup_steps", "generative_weight", "mask_share")


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
        typed = run / "commands.txt"
        text = attempt(partial(read_text, typed, "replace"), typed, "move it away", warn, "") if typed.is_file() else ""
        return cls(
            run.name,
            ckpt,
            header,
            core,
            format,
            [line for line in text.splitlines() if line.startswith("igpt fit")],
            [s for s in read_scores(run / "scores.json", warn) if s.step == step and s.checkpoint == path.name],
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
    side = round(config.n_positions**0.5)
    model, data, step = facts.header["model"], facts.header["data"], facts.header["step"]
    kind, whole = (str(spec["class_path"]).rpartition(".")[2] for spec in (facts.core, model))
    about = [
        ("objective", kind if kind == whole else f"{whole} on {kind}"),
        ("layers, width, heads", f"{config.n_layers}, {config.d_model}, {config.n_heads}"),
        ("images", f"{side}x{side}, {facts.core['init_args'].get('order', 'raster')} order"),
        ("colours", config.vocab_size),
        ("parameters", f"{parameter_count(config):,}"),
    ]
    recipe = [(name, model["init_args"][name]) for name in RECIPE if model["init_args"].get(name) is not None]
    return render(
        "model_card.md.j2",
        **vars(facts) | {"scores": scoring(facts), "data": data},
        version=__version__,
        config=config,
        model=about,
        training=None if data is None and step == 0 else [("optimizer steps", f"{step:,}"), *recipe],
        arguments=json.dumps((data or {}).get("init_args", {}), indent=2).split("\n"),
    )


def scoring(facts: Facts) -> list[tuple[str, str]]:
    """Losses and accuracies at this step."""
    found = [
        (escape(f"{name} on {score.data.label}" if score.data else name), f"{value:.4f}")
        for score in facts.scores
        for name, value in sorted(score.metrics.items())
    ]
    probes = [(f"linear probe ({probe.method})", probe) for probe in facts.probes]
    probes += [(f"earlier probe in {p.folder.name} ({p.method}; {options(p)})", p) for p in facts.aside]
    for name, probe in probes:
        best = f"{probe.result.best.test_accuracy:.4f} at layer {probe.result.best_layer}"
        found.append((escape(f"{name}, test accuracy on {probe.data.label}"), best))
    return found
