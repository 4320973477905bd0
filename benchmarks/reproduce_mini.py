"""The paper's experiments on the digits, with the real commands, in at most half an hour on 2 CPU cores.

    make reproduce-mini            (python benchmarks/reproduce_mini.py [--seeds 0 1 2])

For each seed: AR and BERT pre-training with checkpoints at 1/16, 1/8, 1/4, 1/2 and all of their steps (the paper's 65K
to 1M), a probe of all layers at each of them, few labels, fine-tuning of both with L_GEN + L_CLF and of AR with L_CLF
alone, and the tests; at the end `igpt report` over all runs. Two commands run at a time, on a core each. What has been
done is not done again, so a run that was stopped goes on. The report says for each finding of the paper whether it was
seen here.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
RUNS = Path("runs/mini")  # from REPO, where all commands run
STEPS = (64, 128, 256, 512, 1024)
CONFIGS = {"ar": "configs/digits_ar.yaml", "bert": "configs/digits/bert.yaml"}
RATES = {"ar": 0.001, "bert": 0.003}
FINE_TUNING = ["--trainer.max_steps", 600, "--model.init_args.learning_rate", 0.003]
QUIET = ["--trainer.enable_progress_bar", "false", "--runs_dir", RUNS]
WHOLE_PROBE = ["--method", "all", "--concat", 3, "--labels-per-class", 4, 25, "--subsets", 5]

Command = list[str]


def words(*parts: object) -> Command:
    return [str(part) for part in parts]


def pretraining(kind: str, seed: int) -> list[Command]:
    """Pre-train, test, and probe every checkpoint."""
    name = f"{kind}_{seed}"
    fit = words("fit", "--config", CONFIGS[kind], "--name", name, "--seed_everything", seed, *QUIET)
    fit += words("--model.init_args.learning_rate", RATES[kind], "--trainer.max_steps", STEPS[-1])
    fit += words("--trainer.val_check_interval", STEPS[0], "--samples.every_n_validations", STEPS[-1] // STEPS[0] - 1)
    fit += words("--checkpoint.every_n_train_steps", 0, "--checkpoint.at_steps", list(STEPS))
    if kind == "bert":
        fit += words("--model.init_args.mask_seed", seed)
    checkpoints = RUNS / name / "checkpoints"
    probes = [words("probe", "--ckpt", checkpoints / f"step={step:07d}.ckpt") for step in STEPS[:-1]]
    return [fit, tested(name, "last"), *probes, words("probe", "--ckpt", checkpoints / "last.ckpt", *WHOLE_PROBE)]


def fine_tuning(kind: str, seed: int, weight: float = 1.0) -> list[Command]:
    """Fine-tune the last checkpoint with L_CLF + `weight` L_GEN, and test where validation was best."""
    name = f"{'joint' if weight else 'clf'}_{kind}_{seed}"
    fit = words("fit", "--config", "configs/digits/joint.yaml", "--name", name, "--seed_everything", seed, *QUIET)
    fit += words("--model.init_args.pretrained", RUNS / f"{kind}_{seed}" / "checkpoints" / "last.ckpt", *FINE_TUNING)
    fit += words("--model.init_args.generative_weight", weight)
    single = [tested(name, "best", "--model.init_args.eval_masks", 1)] if kind == "bert" else []
    return [fit, tested(name, "best"), *single]


def tested(name: str, which: str, *options: object) -> Command:
    folder = RUNS / name
    checkpoint = folder / "checkpoints" / f"{which}.ckpt"
    return words("test", "--config", folder / "config.yaml", "--ckpt_path", checkpoint, *QUIET[:2], *options)


def chains(seeds: list[int]) -> list[list[Command]]:
    """What can run side by side, the longest first; inside a chain each command needs the one before."""
    with_ar = [[*pretraining("ar", s), *fine_tuning("ar", s), *fine_tuning("ar", s, weight=0.0)] for s in seeds]
    with_bert = [[*pretraining("bert", s), *fine_tuning("bert", s)] for s in seeds]
    return with_ar + with_bert


def igpt(command: Command) -> int:
    from igpt.cli import main

    return main(command)


def run_chain(chain: list[Command]) -> None:
    for command in chain:
        run(command)


def run_of(command: Command) -> Path:
    """The folder of the run that a command is about."""
    if "--name" in command:
        return RUNS / command[command.index("--name") + 1]
    path = next(Path(word) for word in command if word.startswith(f"{RUNS}/"))
    return RUNS / path.relative_to(RUNS).parts[0]


def run(command: Command) -> None:
    """One command line, unless it was done before; what it prints goes to a log, which says so, in the run's folder."""
    from igpt.cli import main

    line = shlex.join(["igpt", *command])
    name = hashlib.sha256(line.encode()).hexdigest()[:16]
    mark, log = run_of(command) / "done" / f"{name}.log", RUNS / f"{name}.running"
    if mark.exists():
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        print(line, flush=True)
        code = main(command)
    print(f"{time.perf_counter() - started:6.1f} s  {line}", flush=True)
    if code:
        raise SystemExit(f"{line}\nfailed; its output:\n{log.read_text()}")
    mark.parent.mkdir(exist_ok=True)
    log.rename(mark)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    os.chdir(REPO)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, in the processes below
    started = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        if not Path("palettes/digits.npy").exists():
            palette = words("palette", "--data", "Digits", "--colors", 17, "--out", "palettes/digits.npy")
            pool.submit(igpt, palette).result()
        for done in [pool.submit(run_chain, chain) for chain in chains(options.seeds)]:
            done.result()
    kinds = ("ar", "bert", "joint_ar", "joint_bert", "clf_ar")
    folders = [str(RUNS / f"{kind}_{seed}") for kind in kinds for seed in options.seeds]
    code = igpt(["report", *folders, "--out", str(RUNS / "report.html")])
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")
    sys.exit(code)


if __name__ == "__main__":
    main()
