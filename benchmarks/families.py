"""Families of models under one protocol, with the real commands, on 2 CPU cores: the question that ends the paper.

    make compare-families          (python benchmarks/families.py [--data digits mnist] [--seeds 3])

AR, BERT and every family of `igpt.families`, each of about as many parameters, on scikit-learn's digits and on 5,000
digits of MNIST at 12x12. For each seed: training, test, and an L-BFGS probe of all layers; at the end `igpt report`,
and the tables of docs/families.md. What has been done is not done again, so a run that was stopped goes on.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reproduce import REPO, Command, igpt, run_chain, words

PAGE = REPO / "docs" / "families.md"
BEGIN, END = "<!-- tables: make compare-families -->", "<!-- end of tables -->"


@dataclass(frozen=True)
class Ground:
    """A data set on which all families are trained, and what igpt's own networks need for it."""

    title: str
    data: Command
    palette: str
    made_by: Command
    configs: dict[str, str]
    resolution: int
    steps: dict[str, int]  # optimizer steps that are not those of a family's config; "" is of all others

    def runs(self) -> Path:
        return Path("runs/families") / self.title.split(",")[0].lower()


GROUNDS = {
    "digits": Ground(
        title="Digits, 8x8",
        data=[],
        palette="palettes/digits.npy",
        made_by=["--data", "Digits", "--colors", "17"],
        configs={"ar": "configs/digits_ar.yaml", "bert": "configs/digits/bert.yaml"},
        resolution=8,
        steps={"bert": 500},
    ),
    "mnist": Ground(
        title="MNIST, 5,000 images of 12x12",
        data=["--data", "Mnist5k", "--data.init_args.resolution", "12"],
        palette="palettes/mnist_12.npy",
        made_by=["--data", "Mnist5k", "--data.resolution", "12", "--colors", "8"],
        configs={"ar": "configs/mnist/ar.yaml", "bert": "configs/mnist/bert.yaml"},
        resolution=12,
        steps={"": 300},
    ),
}
# Options that bring each family to about the parameters of AR (0.67 million); what is not named is as in its config.
SIZES: dict[str, Command] = {
    "cpc": ["--model.init_args.width", "32"],
    "flow": ["--model.init_args.hidden", "190"],
    "glow": ["--model.init_args.hidden", "190"],
    "mae": ["--model.init_args.width", "96", "--model.init_args.depth", "6"],
    "moco": ["--model.init_args.width", "15"],
    "pixelcnn": ["--model.init_args.width", "81"],
    "simclr": ["--model.init_args.width", "15"],
    "vae": ["--model.init_args.width", "56"],
}
# Parts of names in state dicts that no optimizer moves: buffers, and MoCo's copies of its network.
NOT_TRAINED = {"palette", "running_mean", "running_var", "num_batches_tracked", "queue", "place", "followers", "begun"}
NOT_TRAINED |= {"P", "sign_S", "eye", "data_dep_init_done"}


def families() -> list[str]:
    return sorted(path.stem.removesuffix("_digits") for path in (REPO / "configs" / "families").glob("*_digits.yaml"))


def chain(ground: Ground, family: str, seed: int) -> list[Command]:
    """Train, test, probe."""
    name, folder = f"{family}_{seed}", ground.runs() / f"{family}_{seed}"
    quiet = words("--trainer.enable_progress_bar", "false")
    fit = words("fit", "--config", ground.configs.get(family, f"configs/families/{family}_digits.yaml"), *ground.data)
    if family in ground.configs:
        sizes = words("--model.init_args.transformer.n_positions", ground.resolution**2)
        sizes += words("--model.init_args.palette", ground.palette)
    else:
        sizes = [*SIZES.get(family, []), *words("--model.init_args.resolution", ground.resolution)]
    fit += [*sizes, *(words("--model.init_args.mask_seed", seed) if family == "bert" else [])]
    if steps := ground.steps.get(family, ground.steps.get("")):
        fit += words("--trainer.max_steps", steps, "--trainer.val_check_interval", steps // 2)
    fit += words("--name", name, "--runs_dir", ground.runs(), "--seed_everything", seed, *quiet)
    last = folder / "checkpoints" / "last.ckpt"
    return [
        fit,
        words("test", "--config", folder / "config.yaml", "--ckpt_path", last, *quiet),
        words("probe", "--ckpt", last),
    ]


def table(ground: Ground, names: list[str], seeds: list[int]) -> list[str]:
    """A row a family: means over seeds, with standard deviations, of what the runs' own records say.

    Minutes are the median, which one run beside other work does not move.
    """
    rows = [
        "| family | parameters | bits/dim | best layer | test accuracy | minutes |",
        "|---|---:|---:|---|---:|---:|",
    ]
    raw = []
    for name in names:
        found = defaultdict(list)
        for seed in seeds:
            folder = ground.runs() / f"{name}_{seed}"
            probe = json.loads((folder / "probe" / "probe.json").read_text())
            scores = json.loads((folder / "scores.json").read_text())
            found["accuracy"].append(100 * probe["best_test_accuracy"])
            found["layer"].append(f"{probe['best_layer']} of {probe['layers'][-1]['layer']}")
            found["bits"].append(bits_of(scores))
            found["parameters"].append(parameters_of(folder))
            found["minutes"].append(seconds_of(folder) / 60)
            raw.append(100 * probe["raw_pixels"]["test_accuracy"])
        bits = "—" if None in found["bits"] else spread(found["bits"], 3)
        layers = ", ".join(sorted(set(found["layer"])))
        accuracy, minutes = spread(found["accuracy"], 1), statistics.median(found["minutes"])
        rows.append(f"| {name} | {found['parameters'][0]:,} | {bits} | {layers} | {accuracy} % | {minutes:.1f} |")
    return [*rows, f"| raw pixels | | | | {statistics.fmean(raw):.1f} % | |"]


def spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def bits_of(scores: list[dict]) -> float | None:
    """Bits per dimension of the bytes in the last test, of a family that has a likelihood or a bound of it."""
    return next(
        (s["metrics"]["test/bits_per_dim"] for s in reversed(scores) if "test/bits_per_dim" in s["metrics"]), None
    )


def parameters_of(folder: Path) -> int:
    import torch

    content = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    return sum(t.numel() for name, t in content["state_dict"].items() if not NOT_TRAINED & set(name.split(".")))


def seconds_of(folder: Path) -> float:
    """Of the training: from the first line of its log to when it was done (`run` of reproduce.py keeps both)."""
    log = next(path for path in (folder / "done").glob("*.log") if path.read_text().startswith("igpt fit"))
    taken = re.search(r"^took ([\d.]+) s$", log.read_text(), re.MULTILINE)
    return float(taken[1]) if taken else float("nan")


def write(grounds: list[str], names: list[str], seeds: list[int]) -> None:
    import torch

    machine = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    options = f"--data {' '.join(grounds)} --seeds {len(seeds)}"
    made = f"`python benchmarks/families.py {options}`, {datetime.now(UTC):%d %B %Y}, {machine}, a core a run."
    parts = [f"Written by {made}"]
    for ground in (GROUNDS[name] for name in grounds):
        parts.append(f"### {ground.title}\n\n" + "\n".join(table(ground, names, seeds)))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + "\n\n".join([BEGIN, *parts, END]) + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=GROUNDS, default=list(GROUNDS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    names, seeds = ["ar", "bert", *families()], list(range(options.seeds))
    os.chdir(REPO)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, in the processes below
    started = time.perf_counter()
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for ground in (GROUNDS[name] for name in options.data):
            if not Path(ground.palette).exists():
                pool.submit(igpt, words("palette", *ground.made_by, "--out", ground.palette)).result()
            work = [pool.submit(run_chain, ground.runs(), chain(ground, name, s)) for s in seeds for name in names]
            for done in work:
                done.result()
            folders = [str(ground.runs() / f"{name}_{seed}") for name in names for seed in seeds]
            if igpt(["report", *folders, "--out", str(ground.runs() / "report.html")]):
                raise SystemExit(1)
    write(options.data, names, seeds)
    print(f"wrote {PAGE.relative_to(REPO)}\n{(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
