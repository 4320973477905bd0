"""The model card of an export: what it is, how it was trained and scored, how to load it."""

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

from igpt import __version__
from igpt.model import TransformerConfig
from igpt.palette import stride_of
from igpt.report.comparing import ATTENTIVE
from igpt.report.page import escape, render
from igpt.report.reading import read_commands, read_probes, read_scores, warn
from igpt.report.tables import options
from igpt.system import percent, sha256_of

RECIPE = ("learning_rate", "betas", "weight_decay", "warmup_steps", "generative_weight", "mask_share")


def model_card(ckpt: str, header: dict[str, Any], core: dict[str, Any], format: str, parameters: int) -> str:
    """The card, as Markdown with the hub's front matter.

    Args:
        ckpt: the checkpoint; what lies beside it tells of its run, and what is broken there is left out and said.
        header: model and data as plain data, the step, and the checkpoint that the training began with.
        core: description of the generative module.
        format: huggingface, safetensors or checkpoint.
        parameters: of the network.
    """
    path, model, data, step = Path(ckpt).absolute(), header["model"], header["data"], header["step"]
    run = path.parent.parent if path.parent.name == "checkpoints" else None
    config = TransformerConfig.of(core["init_args"]["transformer"])
    kind, whole = (str(spec["class_path"]).rpartition(".")[2] for spec in (core, model))
    vq = stride_of(core["init_args"].get("palette")) > 1
    recipe = [(name, model["init_args"][name]) for name in RECIPE if model["init_args"].get(name) is not None]
    if began := header.get("began"):
        recipe.insert(0, ("began with", f"{began['checkpoint']}, step {began.get('step', 'not known')}"))
    return render(
        "model_card.md.j2",
        name=run.name if run else path.stem,
        ckpt=ckpt,
        format=format,
        version=__version__,
        config=config,
        shape="x".join(map(str, config.shape)) + (" VQ tokens" if vq else ""),
        coarse=core["init_args"].get("coarse"),
        of="RGB values" if kind == "ByteAutoregressive" else "VQ tokens" if vq else "palette tokens",
        counted="values a channel" if kind == "ByteAutoregressive" else "codes" if vq else "colours",
        order=core["init_args"].get("order", "raster"),
        objective=kind if kind == whole else f"{whole} on {kind}",
        parameters=parameters,
        training=None if data is None and step == 0 else [("optimizer steps", f"{step:,}"), *recipe],
        data=data,
        arguments=json.dumps((data or {}).get("init_args", {}), indent=2).split("\n"),
        commands=[line for line in read_commands(run, warn) if line.startswith("igpt fit")] if run else [],
        scores=[(escape(name), text) for name, text in scoring(run, path, step)] if run else [],
    )


def scoring(run: Path, ckpt: Path, step: int) -> list[tuple[str, str]]:
    """Losses and accuracies of a checkpoint: of probes those of this very file, as far as they say."""
    found = []
    for score in read_scores(run / "scores.json", warn):
        if (score.step, score.checkpoint) == (step, ckpt.name):
            for name, value in sorted(score.metrics.items()):
                ours = name.endswith(("/accuracy", "/top5_accuracy"))
                written = percent(value) if ours and value <= 1 else f"{value:.4f}"
                found.append((f"{name} on {score.data.label}" if score.data else name, written))
    digest = cache(partial(sha256_of, ckpt))
    for aside in (False, True):
        for probe in (one for one in read_probes(run, warn, aside) if one.step == step):
            checksum = probe.checkpoint_sha256  # early ones have none
            if checksum is None or (ckpt.is_file() and digest() == checksum):
                how = f"earlier probe in {probe.folder.name} ({probe.method}; {options(probe)})"
                own = f"{'attentive' if probe.method in ATTENTIVE else 'linear'} probe ({probe.method})"
                name = f"{how if aside else own}, test accuracy on {probe.data.label}"
                best = probe.result.best
                found.append((name, f"{percent(best.test_accuracy)} at layer {best.layer}"))
    return found
