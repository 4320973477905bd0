"""The paper's experiments on a small set of real images, with the real commands, on 2 CPU cores.

    make reproduce-mini            (python benchmarks/reproduce.py digits [--seeds 3]): scikit-learn's digits
    make reproduce-mnist           (python benchmarks/reproduce.py mnist [--seeds 3]): 5,000 digits of MNIST

For each seed: AR and BERT pre-training with checkpoints at 1/16, 1/8, 1/4, 1/2 and all of their steps (the paper's 65K
to 1M), a probe of all layers at each of them, few labels, AR of half the width, fine-tuning of AR and BERT with
L_GEN + L_CLF and of AR with L_CLF alone, and the tests; at the end `igpt report` over all runs. Two commands run at a
time, on a core each. What has been done is not done again, so a run that was stopped goes on. The report says for each
finding of the paper whether it was seen here, and stands in docs/results/.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import platform
import re
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
Command = list[str]
SMALLER = 2  # times narrower than the network of the config


def words(*parts: object) -> Command:
    return [str(part) for part in parts]


@dataclass(frozen=True)
class Study:
    """What is trained on one data set, and for how long; paths are from REPO, where all commands run."""

    title: str
    runs: Path
    palette: str
    made_by: Command
    configs: dict[str, str]
    rates: dict[str, float]
    width: int
    steps: tuple[int, ...]
    tuning_steps: int
    tuning_rate: float
    few: tuple[int, ...]
    probed: Command

    @property
    def quiet(self) -> Command:
        return words("--trainer.enable_progress_bar", "false", "--runs_dir", self.runs)

    def pretraining(self, kind: str, seed: int) -> list[Command]:
        """Pre-train, test, and probe every checkpoint."""
        fit, checkpoints = self.fit(kind, f"{kind}_{seed}", seed), self.runs / f"{kind}_{seed}" / "checkpoints"
        probes = [words("probe", "--ckpt", checkpoints / f"step={step:07d}.ckpt") for step in self.steps[:-1]]
        whole = [*self.probed, "--labels-per-class", *self.few, "--subsets", 5]
        return [fit, self.tested(f"{kind}_{seed}", "last"), *probes, self.probe_of_last(f"{kind}_{seed}", *whole)]

    def fit(self, kind: str, name: str, seed: int, *options: object) -> Command:
        fit = words("fit", "--config", self.configs[kind], "--name", name, "--seed_everything", seed, *self.quiet)
        fit += words("--model.init_args.learning_rate", self.rates[kind], "--trainer.max_steps", self.steps[-1])
        often = self.steps[-1] // self.steps[0] - 1
        fit += words("--trainer.val_check_interval", self.steps[0], "--samples.every_n_validations", often)
        fit += words("--checkpoint.every_n_train_steps", 0, "--checkpoint.at_steps", list(self.steps), *options)
        return fit + (words("--model.init_args.mask_seed", seed) if kind == "bert" else [])

    def probe_of_last(self, name: str, *options: object) -> Command:
        return words("probe", "--ckpt", self.runs / name / "checkpoints" / "last.ckpt", *options)

    def smaller(self, seed: int) -> list[Command]:
        """AR of less width, tested and probed at its end."""
        name, width = f"ar_small_{seed}", self.width // SMALLER
        narrow = ["--model.init_args.transformer.d_model", width]
        return [self.fit("ar", name, seed, *narrow), self.tested(name, "last"), self.probe_of_last(name)]

    def fine_tuning(self, kind: str, seed: int, weight: float = 1.0) -> list[Command]:
        """Fine-tune the last checkpoint with L_CLF + `weight` L_GEN, and test where validation was best."""
        name = f"{'joint' if weight else 'clf'}_{kind}_{seed}"
        fit = words("fit", "--config", self.configs["joint"], "--name", name, "--seed_everything", seed, *self.quiet)
        fit += words("--model.init_args.pretrained", self.runs / f"{kind}_{seed}" / "checkpoints" / "last.ckpt")
        fit += words("--trainer.max_steps", self.tuning_steps, "--model.init_args.learning_rate", self.tuning_rate)
        fit += words("--model.init_args.generative_weight", weight)
        single = [self.tested(name, "best", "--model.init_args.eval_masks", 1)] if kind == "bert" else []
        return [fit, self.tested(name, "best"), *single]

    def tested(self, name: str, which: str, *options: object) -> Command:
        folder = self.runs / name
        checkpoint = folder / "checkpoints" / f"{which}.ckpt"
        quiet = self.quiet[:2]
        return words("test", "--config", folder / "config.yaml", "--ckpt_path", checkpoint, *quiet, *options)

    def stages(self, seeds: list[int]) -> list[list[list[Command]]]:
        """Chains that can run side by side; a stage needs the one before, and so does each command of a chain."""
        first = [self.pretraining(kind, seed) for kind in ("ar", "bert") for seed in seeds]
        first += [self.smaller(seed) for seed in seeds]
        ways = (("ar", 1.0), ("bert", 1.0), ("ar", 0.0))
        return [first, [self.fine_tuning(kind, seed, weight) for kind, weight in ways for seed in seeds]]

    def folders(self, seeds: list[int]) -> list[str]:
        kinds = ("ar", "bert", "ar_small", "joint_ar", "joint_bert", "clf_ar")
        return [str(self.runs / f"{kind}_{seed}") for kind in kinds for seed in seeds]


STUDIES = {
    "digits": Study(
        title="scikit-learn's digits",
        runs=Path("runs/mini"),
        palette="palettes/digits.npy",
        made_by=["--data", "Digits", "--colors", "17"],
        configs={"ar": "configs/digits_ar.yaml"} | {kind: f"configs/digits/{kind}.yaml" for kind in ("bert", "joint")},
        rates={"ar": 0.001, "bert": 0.003},
        width=96,
        steps=(64, 128, 256, 512, 1024),
        tuning_steps=600,
        tuning_rate=0.003,
        few=(4, 25),
        probed=["--method", "all", "--concat", "3"],
    ),
    "mnist": Study(
        title="5,000 digits of MNIST",
        runs=Path("runs/mnist"),
        palette="palettes/mnist.npy",
        made_by=["--data", "Mnist5k", "--data.resolution", "14", "--colors", "8"],
        configs={kind: f"configs/mnist/{kind}.yaml" for kind in ("ar", "bert", "joint")},
        rates={"ar": 0.002, "bert": 0.003},
        width=96,
        steps=(75, 150, 300, 600, 1200),
        tuning_steps=200,
        tuning_rate=0.003,
        few=(4, 25),
        probed=["--method", "lbfgs,attentive"],
    ),
}  # fmt: skip


def igpt(command: Command) -> int:
    from igpt.cli import main

    return main(command)


def run_chain(runs: Path, chain: list[Command]) -> None:
    for command in chain:
        run(runs, command)


def run_of(runs: Path, command: Command) -> Path:
    """The folder of the run that a command is about."""
    if "--name" in command:
        return runs / command[command.index("--name") + 1]
    path = next(Path(word) for word in command if word.startswith(f"{runs}/"))
    return runs / path.relative_to(runs).parts[0]


def run(runs: Path, command: Command) -> None:
    """One command line, unless it was done before; what it prints goes to a log, which says so, in the run's folder."""
    line = shlex.join(["igpt", *command])
    name = hashlib.sha256(line.encode()).hexdigest()[:16]
    mark, log = run_of(runs, command) / "done" / f"{name}.log", runs / f"{name}.running"
    if mark.exists():
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        print(line, flush=True)
        code = igpt(command)
        print(f"took {time.perf_counter() - started:.1f} s")
    print(f"{time.perf_counter() - started:6.1f} s  {line}", flush=True)
    if code:
        raise SystemExit(f"{line}\nfailed; its output:\n{log.read_text()}")
    mark.parent.mkdir(exist_ok=True)
    log.rename(mark)


def write_results(name: str, study: Study, seeds: int) -> Path:
    """The report's Markdown with where and when it was made, as a page of the documentation."""
    import torch

    report = (REPO / study.runs / "report.md").read_text()
    body = re.sub(r"^# .*\n", "", report, count=1)
    machine = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    made = f"`python benchmarks/reproduce.py {name} --seeds {seeds}`, {datetime.now(UTC):%d %B %Y}, {machine}."
    page = REPO / "docs" / "results" / f"{name}.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(f"# Results on {study.title}\n\nWritten by {made}\n{body}")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    study, seeds = STUDIES[options.study], list(range(options.seeds))
    os.chdir(REPO)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, in the processes below
    started = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        if not Path(study.palette).exists():
            pool.submit(igpt, words("palette", *study.made_by, "--out", study.palette)).result()
        for chains in study.stages(seeds):
            for done in [pool.submit(run_chain, study.runs, chain) for chain in chains]:
                done.result()
    code = igpt(["report", *study.folders(seeds), "--out", str(study.runs / "report.html")])
    if code:
        sys.exit(code)
    print(f"wrote {write_results(options.study, study, options.seeds).relative_to(REPO)}")
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
