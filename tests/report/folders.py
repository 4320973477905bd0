"""Run folders as `igpt fit`, `probe` and `test` leave them, written from made-up figures whose answer is known."""

import json
from pathlib import Path

import torch
import yaml
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

CLASSES = {"AR": "Autoregressive", "BERT": "BERT", "Joint": "Joint"}
COLORS = 17


def transformer(sos: bool, layers: int = 6) -> dict:
    return {"n_layers": layers, "d_model": 96, "n_heads": 4, "n_positions": 64, "vocab_size": COLORS, "sos": sos}


def generative(core: str) -> dict:
    return {
        "class_path": f"igpt.modules.{CLASSES[core]}",
        "init_args": {"transformer": transformer(core == "AR"), "palette": "palettes/digits.npy", "order": "raster"},
    }


def model(objective: str, core: str = "AR", origin: str = "pretrained", weight: float = 1.0) -> dict:
    if objective != "Joint":
        spec = generative(objective)
        spec["init_args"]["learning_rate"] = 0.001
        return spec
    begun = {"pretrained": f"runs/{core}/checkpoints/last.ckpt"}
    if origin == "scratch":
        begun = {"generative": generative(core)}
    recipe = {"num_classes": 10, "generative_weight": weight, "learning_rate": 0.003, "evaluation": "mode"}
    return {"class_path": "igpt.modules.Joint", "init_args": {**begun, **recipe, "eval_masks": 5}}


def data(labels_per_class: int | None = None, subset_seed: int = 0, name: str = "Digits", resolution: int = 8) -> dict:
    split = {
        "val_share": 0.1,
        "fold_validation": False,
        "labels_per_class": labels_per_class,
        "subset_seed": subset_seed,
    }
    args = {"resolution": resolution, "batch_size": 64, "seed": 0, "split": split}
    return {"class_path": f"igpt_datamodules.{name}", "init_args": args}


def write_config(folder: Path, spec: dict, of: dict | None = None, seed: int = 0, **more: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    trainer = {"max_steps": 500, "precision": "bf16-mixed"}
    config = {"seed_everything": seed, "trainer": trainer, "model": spec, "data": of or data(), **more}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def write_checkpoint(
    folder: Path, objective: str, core: str, step: int, name: str | None = None, weight: float = 1.0
) -> None:
    torch.manual_seed(0)
    prefix = "generative." if objective == "Joint" else ""
    state = {f"{prefix}palette.colors": torch.rand(COLORS, 3) * 2 - 1, f"{prefix}pixel_order": torch.arange(64)}
    state[f"{prefix}transformer.wpe"] = torch.zeros(64, 96)
    spec = model(objective, core, weight=weight)
    if objective == "Joint":
        spec["init_args"] |= {"pretrained": None, "generative": generative(core)}
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    content = {"global_step": step, "state_dict": state, "igpt": {"format": 1, "model": spec, "data": data()}}
    file = folder / "checkpoints" / (name or f"step={step:07d}.ckpt")
    torch.save(content, file)
    last = folder / "checkpoints" / "last.ckpt"
    last.unlink(missing_ok=True)
    last.symlink_to(file.name)


def write_events(folder: Path, scalars: dict[str, dict[int, float]], pictures: dict[str, int] | None = None) -> None:
    """Scalars by tag and by the number that TensorBoard shows; pictures by tag and step."""
    writer = SummaryWriter(folder)
    for tag, points in scalars.items():
        for step, value in points.items():
            writer.add_scalar(tag, value, step)
    for tag, step in (pictures or {}).items():
        writer.add_image(tag, torch.randint(0, 256, (3, 72, 64), dtype=torch.uint8), step)
    writer.close()


def layer_rows(accuracies: list[float], chosen: str = "strength") -> list[dict]:
    """One row a layer; validation says the same as test."""
    return [
        {"layer": layer, chosen: 10 if chosen == "k" else 0.001, "val_accuracy": value, "test_accuracy": value}
        for layer, value in enumerate(accuracies)
    ]


def probe_record(accuracies: list[float], step: int = 500, **more: object) -> dict:
    rows = layer_rows(accuracies)
    best = max(range(len(accuracies)), key=lambda layer: (accuracies[layer], -layer))
    raw = {"strength": 0.01, "val_accuracy": 0.9, "test_accuracy": 0.95, "train_accuracy": 0.99}
    named = {"best_layer": best, "best_test_accuracy": accuracies[best], "layers": rows, "raw_pixels": raw}
    features = {
        "norm": "normed",
        "grid": 1,
        "masks": 0,
        "dtype": "float16",
        "standardise": True,
        "precision": "32-true",
    }
    return {
        "command": f"igpt probe --ckpt runs/x/checkpoints/step={step:07d}.ckpt",
        "checkpoint": "runs/x/checkpoints/last.ckpt",
        "step": step,
        "data": data(),
        "method": "lbfgs",
        **named,
        "methods": {"lbfgs": {**named, "protocol": "chosen on validation, refitted on train + val"}},
        "features": features,
        "images": {"train": 1294, "val": 144, "test": 359},
        "concat": None,
        "low_data": [],
        **more,
    }


def write_probe(folder: Path, record: dict, last: bool = True) -> Path:
    path = folder / "probe" / ("probe.json" if last else f"step={record['step']:07d}/probe.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def score(accuracy: float, masks: int = 5, checkpoint: str = "best.ckpt", step: int = 400, **more: object) -> dict:
    return {
        "verb": "test",
        "command": f"igpt test --ckpt_path runs/x/checkpoints/{checkpoint}",
        "checkpoint": f"runs/x/checkpoints/{checkpoint}",
        "step": step,
        "model": {"class_path": "igpt.modules.Joint", "evaluation": "mode", "eval_masks": masks},
        "data": data(),
        "metrics": {"test/accuracy": accuracy, "test/generative_loss": 1.3},
        **more,
    }


def write_scores(folder: Path, entries: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scores.json"
    path.write_text(json.dumps(entries))
    return path


def pretrained(
    folder: Path, objective: str, top: float, seed: int = 0, losses: tuple[float, ...] = (1.9, 1.6, 1.4, 1.3)
) -> Path:
    """A whole pre-training run: four checkpoints whose best layer, the third of six, gets better as the loss falls."""
    write_config(folder, model(objective), seed=seed)
    steps = [100, 200, 400, 500]
    spread = {step - 1: loss for step, loss in zip(steps, losses, strict=True)}
    write_events(folder, {"train/loss": {s: v + 0.02 for s, v in spread.items()}, "val/loss": spread})
    for index, step in enumerate(steps):
        write_checkpoint(folder, objective, objective, step)
        best = top - 0.03 * (3 - index)
        curve = [best - drop for drop in (0.2, 0.1, 0.05, 0.0, 0.06, 0.1, 0.15)]
        low = [{"labels_per_class": n, "subsets": 2, "runs": [{"test_accuracy": a}, {"test_accuracy": a + 0.02}]}
               for n, a in ((4, 0.5), (25, 0.7))]  # fmt: skip
        write_probe(folder, probe_record(curve, step, low_data=low if step == 500 else []), last=step == 500)
    likelihood = {"images": 359, "mean_nats": 1.35, "std_nats": 0.2, "mean_bits": 1.9476}
    entry = score(0.0, checkpoint="last.ckpt", step=500, metrics={"test/loss": 1.35}, model={})
    write_scores(folder, [{**entry, **({"likelihood": likelihood} if objective == "AR" else {})}])
    (folder / "commands.txt").write_text(f"igpt fit --config configs/digits/{objective.lower()}.yaml\n")
    for name in ("samples", "completions"):
        Image.new("RGB", (64, 64), (90, 120, 200)).save(folder / f"{name}.png")
    return folder


def tuned(folder: Path, core: str, accuracy: float, seed: int = 0, origin: str = "pretrained", weight: float = 1.0,
          one_mask: float | None = None) -> Path:  # fmt: skip
    """A whole fine-tuned run with its test."""
    write_config(folder, model("Joint", core, origin, weight), seed=seed)
    write_events(
        folder, {"train/loss": {99: 2.0, 499: 1.5}, "val/loss": {249: 1.8, 499: 1.6}, "val/accuracy": {499: 0.9}}
    )
    write_checkpoint(folder, "Joint", core, 500, weight=weight)
    write_checkpoint(folder, "Joint", core, 400, "best.ckpt", weight)
    more = [] if one_mask is None else [score(one_mask, masks=1)]
    confusion = {"classes": ["cat", "dog", "$x_{$ \u6570"], "counts": [[30, 10, 0], [0, 20, 0], [1, 0, 0]]}
    write_scores(folder, [score(accuracy, confusion=confusion), *more])
    return folder
