"""The model card of an export: what it is, how it was trained and scored, how to load it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igpt import __version__
from igpt.model import TransformerConfig, parameter_count
from igpt.report.page import escape, render
from igpt.report.reading import read_commands, read_probes, read_scores, warn
from igpt.report.schema import Probe, Score
from igpt.report.tables import options
from igpt.system import percent, sha256_of

RECIPE = ("learning_rate", "betas", "weight_decay", "warmup_steps", "generative_weight", "mask_share")


class Facts(NamedTuple):
    """What the card is made of: of the file, and of the run that it lies in."""

    name: str  # of the run, or of the checkpoint where it lies in none
    ckpt: str
    header: dict[str, Any]  # model and data as plain data, and the step
    core: dict[str, Any]  # description of the generative module
    format: str  # huggingface, safetensors or checkpoint
    commands: Sequence[str] = ()  # that trained the run
    scores: Sequence[Score] = ()  # at this step
    probes: Sequence[Probe] = ()  # of this file; of this step, where a probe.json does not say of which file
    aside: Sequence[Probe] = ()  # the same of earlier probes, which later ones moved aside

    @classmethod
    def of(cls, ckpt: str, header: dict[str, Any], core: dict[str, Any], format: str) -> "Facts":
        """Look beside the checkpoint for what is known of its run; a record that is broken is left out and said."""
        path = Path(ckpt).absolute()
        if path.parent.name != "checkpoints":
            return cls(path.stem, ckpt, header, core, format)
        run, step = path.parent.parent, header["step"]
        commands = [line for line in read_commands(run, warn) if line.startswith("igpt fit")]
        scores = [s for s in read_scores(run / "scores.json", warn) if s.step == step and s.checkpoint == path.name]
        probes = [of_checkpoint(read_probes(run, warn, aside), path, step) for aside in (False, True)]
        return cls(run.name, ckpt, header, core, format, commands, scores, *probes)


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
    if began := facts.header.get("began"):
        recipe.insert(0, ("began with", f"{began['checkpoint']}, step {began.get('step', 'not known')}"))
    return render(
        "model_card.md.j2",
        **facts._asdict() | {"scores": scoring(facts), "data": data},
        version=__version__,
        config=config,
        model=about,
        training=None if data is None and step == 0 else [("optimizer steps", f"{step:,}"), *recipe],
        arguments=json.dumps((data or {}).get("init_args", {}), indent=2).split("\n"),
    )


def scoring(facts: Facts) -> list[tuple[str, str]]:
    """Losses and accuracies at this step."""
    found = [
        (escape(f"{name} on {score.data.label}" if score.data else name), written(name, value))
        for score in facts.scores
        for name, value in sorted(score.metrics.items())
    ]
    probes = [(f"linear probe ({probe.method})", probe) for probe in facts.probes]
    probes += [(f"earlier probe in {p.folder.name} ({p.method}; {options(p)})", p) for p in facts.aside]
    for name, probe in probes:
        best = f"{percent(probe.result.best.test_accuracy)} at layer {probe.result.best_layer}"
        found.append((escape(f"{name}, test accuracy on {probe.data.label}"), best))
    return found


def written(name: str, value: float) -> str:
    """A metric; the accuracies of igpt's own modules in per cent."""
    return percent(value) if name.endswith(("/accuracy", "/top5_accuracy")) and 0 <= value <= 1 else f"{value:.4f}"
