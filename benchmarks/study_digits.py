"""Pre-training and fine-tuning on the digits, with the real commands: what of the paper's claims shows at this size?

    python benchmarks/study_digits.py --seeds 0 1 2      # about 10 minutes a seed on 2 CPU cores

Per seed: AR and BERT pre-training, then with equal steps, rate and batch: joint fine-tuning from each, training from
scratch with the joint objective, and fine-tuning from AR with L_CLF alone. The checkpoint with the best validation
accuracy is tested, as the paper stops there. Results go to docs/results.json; finished runs are not repeated, and
docs/results.md is the table of all seeds in that file.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

REPO = Path(__file__).resolve().parents[1]
RUNS = REPO / "runs" / "study_digits"
RESULTS = REPO / "docs" / "results.json"
PRETRAINED = {"ar": ("digits_ar", 1000, 0.001), "bert": ("digits_bert", 1000, 0.003)}  # config, steps, rate
STEPS, RATE, VALIDATE_EVERY = 800, 0.003, 50
FINE_TUNED = {
    "joint_ar": ("from AR, L_GEN + L_CLF", {"pretrained": "ar"}),
    "joint_bert": ("from BERT, L_GEN + L_CLF, 5 masks", {"pretrained": "bert"}),
    "scratch": ("from scratch, L_GEN + L_CLF", {}),
    "clf_only_ar": ("from AR, L_CLF alone", {"pretrained": "ar", "generative_weight": 0.0}),
}
BY_HAND = "<!-- what follows is written by hand and kept -->"
ORDER = ["ar", "joint_ar", "bert", "joint_bert", "scratch", "clf_only_ar"]


def igpt(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "igpt", *map(str, arguments)], cwd=REPO, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"igpt {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def read(name: str) -> dict:
    return yaml.safe_load((REPO / "configs" / f"{name}.yaml").read_text())


def train(config: dict, folder: Path, seed: int) -> Path:
    """Fit a config that is written beside its run; returns the folder of its checkpoints."""
    config["trainer"]["enable_progress_bar"] = False
    config["samples"] = {"num": 0, "completions": 0}
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    igpt("fit", "--config", path, "--runs_dir", folder.parent, "--seed_everything", seed)
    return folder / "checkpoints"


def tested(config: Path, checkpoint: Path, key: str) -> float:
    out = igpt("test", "--config", config, "--runs_dir", config.parent, "--ckpt_path", checkpoint)
    return float(re.search(rf"{key}\s+([0-9.]+)", out)[1])


def pretrain(kind: str, seed: int) -> dict:
    folder = RUNS / str(seed) / kind
    name, steps, rate = PRETRAINED[kind]
    config = read(name)
    config["trainer"]["max_steps"] = steps
    config["model"]["init_args"]["learning_rate"] = rate
    if kind == "bert":
        config["model"]["init_args"]["mask_seed"] = seed
    checkpoints = train(config, folder, seed)
    return {"test_loss": tested(folder.with_suffix(".yaml"), checkpoints / "last.ckpt", "test/loss")}


def fine_tune(kind: str, seed: int) -> dict:
    folder, options = RUNS / str(seed) / kind, dict(FINE_TUNED[kind][1])
    config = read("digits_joint")
    arguments = config["model"]["init_args"]
    arguments.update(learning_rate=RATE, generative_weight=options.get("generative_weight", 1.0))
    source = options.get("pretrained")
    if source:
        arguments["pretrained"] = str(RUNS / str(seed) / source / "checkpoints" / "last.ckpt")
    else:
        del arguments["pretrained"]
        arguments["generative"] = read("digits_ar")["model"]
    trainer = config["trainer"]
    trainer.update(max_steps=STEPS, val_check_interval=VALIDATE_EVERY)
    trainer["callbacks"] = [c for c in trainer["callbacks"] if not c["class_path"].endswith("EarlyStopping")]
    checkpoints = train(config, folder, seed)
    written = folder.with_suffix(".yaml")
    return {
        "test_accuracy": tested(written, checkpoints / "best.ckpt", "test/accuracy"),
        "last_test_accuracy": tested(written, checkpoints / "last.ckpt", "test/accuracy"),
    }


def table(results: dict) -> str:
    seeds = sorted(results, key=int)
    lines = [
        "# Results",
        "",
        "## Digits: pre-training and fine-tuning",
        "",
        f"`python benchmarks/study_digits.py --seeds {' '.join(seeds)}`",
        "",
        "2 CPU cores, bf16; 1,294 training, 144 validation and 359 test images. Networks of `configs/digits_ar.yaml`",
        f"and `digits_bert.yaml`, pre-trained {PRETRAINED['ar'][1]} steps at rate {PRETRAINED['ar'][2]} (AR) and",
        f"{PRETRAINED['bert'][1]} at {PRETRAINED['bert'][2]} (BERT);",
        f"fine-tuning {STEPS} steps of 64 images at rate {RATE}, validated every {VALIDATE_EVERY} steps.",
        "Accuracy on test in percent, mean and deviation over the seeds: at the best validation accuracy (the paper's",
        "rule), and at the last step.",
        "",
        "| | best on validation | last step | seeds |",
        "|---|---|---|---|",
    ]
    for kind, (name, _) in FINE_TUNED.items():
        rows = [results[seed][kind] for seed in seeds if kind in results[seed]]
        if rows:
            cells = [spread([100 * row[key] for row in rows]) for key in ("test_accuracy", "last_test_accuracy")]
            lines.append(f"| {name} | {cells[0]} | {cells[1]} | {len(rows)} |")
    lines += ["", "| pre-training | test loss, nats per (masked) pixel | seeds |", "|---|---|---|"]
    for kind in PRETRAINED:
        rows = [results[seed][kind] for seed in seeds if kind in results[seed]]
        if rows:
            lines.append(f"| {kind.upper()} | {spread([row['test_loss'] for row in rows], 3)} | {len(rows)} |")
    lines += ["", BY_HAND]
    return "\n".join(lines)


def spread(values: list[float], digits: int = 1) -> str:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    igpt("palette", "--data", "Digits", "--colors", 17, "--out", "palettes/digits.npy")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for seed in seeds:
        runs = results.setdefault(str(seed), {})
        for kind in ORDER:
            if kind in runs:
                continue
            started = time.perf_counter()
            runs[kind] = pretrain(kind, seed) if kind in PRETRAINED else fine_tune(kind, seed)
            runs[kind]["seconds"] = round(time.perf_counter() - started, 1)
            print(f"seed {seed}  {kind:12} {runs[kind]}", flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    page = RESULTS.with_suffix(".md")
    by_hand = page.read_text().partition(BY_HAND)[2] if page.exists() else "\n"
    page.write_text(table(results) + by_hand)
    print(table(results))


if __name__ == "__main__":
    main()
