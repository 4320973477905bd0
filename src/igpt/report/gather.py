"""From a run folder to a record. Everything in the folder is optional but config.yaml or a checkpoint."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from igpt.checkpoint import CHECKPOINT_KEY, read_checkpoint
from igpt.errors import UserError
from igpt.report.events import SHOWN, read_events
from igpt.report.reading import UNKNOWN, data_of, mapping, read_probe, read_scores
from igpt.report.records import Data, Network, Picture, Probe, Run

OBJECTIVES = {"Autoregressive": "AR", "BERT": "BERT", "Joint": "Joint"}
IMPORTED = "checkpoints/last.yaml"  # the config that `igpt import` writes beside its checkpoint
NOT_TRAINED = ("palette.colors", "pixel_order")  # tensors of a checkpoint that are no parameters


def gather_all(folders: list[str]) -> list[Run]:
    """The runs in the order given; one named twice counts once, and runs of equal names get their folders as names.

    Raises:
        UserError: no run is named, or see `gather`.
    """
    if not folders:
        raise UserError("no run is named; give folders of runs, such as: igpt report runs/digits_ar --out report.html")
    runs = [gather(folder) for folder in {Path(folder).absolute(): folder for folder in folders}.values()]
    runs = told_apart(runs)
    names = Counter(run.name for run in runs)
    return [replace(run, name=run.folder) if names[run.name] > 1 else run for run in runs]


def gather(folder: str) -> Run:
    """Everything that the files of one run folder say.

    Raises:
        UserError: there is no such folder, it holds no run, or a file in it is broken.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"run {folder}: there is no such folder; give the folder of a run, such as runs/digits_ar")
    config = read_config(path / "config.yaml")
    checkpoint = newest_checkpoint(path / "checkpoints")
    if config is None and checkpoint is None:
        raise UserError(f"run {folder} holds neither config.yaml nor checkpoints; give the folder of a run of igpt fit")
    content = read_checkpoint(checkpoint) if checkpoint else {}
    run = Run(
        name=path.absolute().name,
        folder=folder,
        **describe(path, config, content),
        events=read_events(path),
        probes=read_probes(path / "probe"),
        scores=read_scores(path / "scores.json") if (path / "scores.json").exists() else [],
        pictures={name: Picture(p.read_bytes(), p.name) for name in SHOWN if (p := path / f"{name}.png").is_file()},
        commands=read_lines(path / "commands.txt"),
        steps_saved=saved_steps(path / "checkpoints"),
    )
    return replace(run, data=scored_data(run)) if run.data == UNKNOWN else run


def told_apart(runs: list[Run]) -> list[Run]:
    """The runs with labels of data that are equal only where all that is known of the data is."""
    runs = [identified(run) for run in runs]
    found: dict[str, list[str]] = {}
    for run in runs:
        for data in [run.data, *(p.data for p in run.probes), *(s.data for s in run.scores if s.data)]:
            if data.known not in found.setdefault(data.plain, []):
                found[data.plain].append(data.known)

    def named(data: Data) -> Data:
        several = found[data.plain]
        return replace(data, apart=f"#{several.index(data.known) + 1}" if len(several) > 1 else "")

    return [
        replace(
            run,
            data=named(run.data),
            probes=[replace(probe, data=named(probe.data)) for probe in run.probes],
            scores=[replace(score, data=named(score.data)) if score.data else score for score in run.scores],
        )
        for run in runs
    ]


def identified(run: Run) -> Run:
    """A run of a version that wrote no identity of its data, with that of a later record of the same arguments."""
    if run.data.known != run.data.arguments:
        return run
    records = [*(probe.data for probe in run.probes), *(score.data for score in run.scores if score.data)]
    same = (data.known for data in records if data.plain == run.data.plain and data.arguments == run.data.arguments)
    known = next((text for text in same if text != run.data.arguments), run.data.known)

    def named(data: Data) -> Data:
        return replace(data, known=known) if data == run.data or data.known == run.data.known else data

    return replace(
        run,
        data=named(run.data),
        probes=[replace(probe, data=named(probe.data)) for probe in run.probes],
        scores=[replace(score, data=named(score.data)) if score.data else score for score in run.scores],
    )


def scored_data(run: Run) -> Data:
    """Name and resolution of what a run was last tested on, else validated; unknown where no score tells."""
    known = [score for score in reversed(run.scores) if score.data is not None]
    last = max(known, key=lambda score: score.verb == "test", default=None)
    return Data(last.data.name, last.data.resolution) if last and last.data else UNKNOWN


def read_config(path: Path) -> dict[str, Any] | None:
    """config.yaml as plain data; None where there is none.

    Raises:
        UserError: it is no YAML file with a model and data.
    """
    if not path.exists():
        return None
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not readable YAML; put back the file that igpt fit wrote") from error
    if not isinstance(config, dict) or not all(isinstance(config.get(part), dict) for part in ("model", "data")):
        raise UserError(f"{path} is not the config of a run; put back the file that igpt fit wrote")
    return config


def newest_checkpoint(folder: Path) -> Path | None:
    """last.ckpt, or else the file of the latest step."""
    if (folder / "last.ckpt").exists():
        return folder / "last.ckpt"
    return max(folder.glob("step=*.ckpt"), default=None)


def saved_steps(folder: Path) -> list[int]:
    """Steps that there are checkpoints of."""
    steps = (path.stem.removeprefix("step=") for path in folder.glob("step=*.ckpt"))
    return sorted(int(step) for step in steps if step.isdigit())


def describe(path: Path, config: dict[str, Any] | None, content: dict[str, Any]) -> dict[str, Any]:
    """What kind of run this is, from its checkpoint's header and its config.

    Raises:
        UserError: neither names a model that igpt knows.
    """
    header, config = mapping(content.get(CHECKPOINT_KEY)), mapping(config)
    stored, chosen, trainer = mapping(header.get("model")), mapping(config.get("model")), mapping(config.get("trainer"))
    model = {**mapping(chosen.get("init_args")), **mapping(stored.get("init_args"))}
    objective = objective_of(stored) or objective_of(chosen)
    if objective is None:
        raise UserError(f"run {path}: it is of no class of igpt.modules; give the folder of a run of igpt fit")
    held = core_of(stored, chosen)
    best = (path / "checkpoints" / "best.ckpt").exists()
    imported = not config and (path / IMPORTED).exists()
    core = objective if objective != "Joint" else objective_of(held) or "unknown"
    inner = model if objective != "Joint" else mapping(held.get("init_args"))
    return {
        "objective": objective,
        "checkpoint": "checkpoints/best.ckpt" if best and objective == "Joint" else "checkpoints/last.ckpt",
        "config": IMPORTED if imported else "config.yaml",
        "core": core,
        "data": data_of(header.get("data") or config.get("data"), header.get("identity")),
        "origin": origin_of(config, core) if objective == "Joint" else None,
        "weight": model.get("generative_weight", 1.0) if objective == "Joint" else None,
        "network": network_of(inner.get("transformer")),
        "parameters": count_parameters(content.get("state_dict", {})) or None,
        "palette": palette_of(content.get("state_dict", {})),
        "seed": config.get("seed_everything"),
        "steps": content.get("global_step"),
        "max_steps": trainer.get("max_steps"),
        "learning_rate": model.get("learning_rate"),
        "order": inner.get("order", "raster"),
        "precision": trainer.get("precision"),
        "evaluation": evaluation_of(model) if objective == "Joint" else None,
    }


def objective_of(spec: Any) -> str | None:
    """AR, BERT or Joint, by the class that a specification names."""
    name = spec.get("class_path") if isinstance(spec, dict) else None
    return OBJECTIVES.get(str(name).rpartition(".")[2])


def core_of(stored: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """What Joint holds: as its checkpoint says, else the config, else the checkpoint that it was to start from."""
    given = mapping(chosen.get("init_args"))
    held = mapping(stored.get("init_args")).get("generative") or given.get("generative")
    if not held and Path(given.get("pretrained") or "").is_file():
        held = read_checkpoint(given["pretrained"])[CHECKPOINT_KEY]["model"]
    return held if isinstance(held, dict) else {}


def origin_of(config: dict[str, Any], core: str) -> str | None:
    """Where a fine-tuned run began: AR, BERT or scratch.

    None where no file tells: without config.yaml, and where the run was resumed, since its config then names the module
    to go on with, wherever that came from.
    """
    given = mapping(mapping(config.get("model")).get("init_args"))
    if given.get("pretrained"):
        return core
    new = given.get("generative")
    if not isinstance(new, dict) or config.get("ckpt_path"):
        return None
    return core if mapping(new.get("init_args")).get("start_from") else "scratch"


def network_of(shape: Any) -> Network | None:
    """Shape of the transformer, where all of it is known."""
    names = ("n_layers", "d_model", "n_heads", "n_positions", "vocab_size")
    if not isinstance(shape, dict) or not all(isinstance(shape.get(name), int) for name in names):
        return None
    return Network(*(shape[name] for name in names))


def evaluation_of(model: dict[str, Any]) -> tuple[str, int]:
    """How Joint finds classes, with the module's defaults."""
    return model.get("evaluation", "mode"), model.get("eval_masks", 5)


def count_parameters(state: dict[str, Tensor]) -> int:
    """Numbers in all trained tensors."""
    return sum(value.numel() for name, value in state.items() if not name.endswith(NOT_TRAINED))


def palette_of(state: dict[str, Tensor]) -> Tensor | None:
    """The palette's colours, `(k, 3)` in [-1, 1]."""
    return next((value for name, value in state.items() if name.endswith("palette.colors")), None)


def read_probes(folder: Path) -> list[Probe]:
    """All probe.json of a run by step; of two of one step, the one that stands in the folder itself.

    Those that a later probe of other data or options has moved aside, to `step=N.1`, are of no step any more.

    Raises:
        UserError: see `read_probe`.
    """
    steps = [path for path in sorted(folder.glob("*/probe.json")) if not re.search(r"\.\d+$", path.parent.name)]
    files = [*steps, *folder.glob("probe.json")]
    by_step = {probe.step: probe for probe in map(read_probe, files)}
    return [by_step[step] for step in sorted(by_step)]


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty; none where there is no file."""
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
