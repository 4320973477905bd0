"""The study of `igpt scale`: its config, its runs one after the other, and its record."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from igpt.commands.tune import attached, differences, read_settings
from igpt.data import shape_of
from igpt.model import TransformerConfig
from igpt.modules import colors_of
from igpt.parsing import RECIPES, check_config, config_name
from igpt.scaling import Measure, Planned, draw, fit_study, geometric, page, plan, training_operations
from igpt.system import LOST, UserError, UserErrors, atomic_path, find_config, remove

CAUSAL = {"Autoregressive": True, "BERT": False}  # the classes that can be scaled
STEP = 4.0  # between budgets, where only one of their ends is given
RATIOS = (5.0, 500.0)
RECORD = "scale.json"


@dataclass(frozen=True)
class Result:
    """What came of a run: validation loss in nats per pixel, and accuracy of its best layer as shares of 1."""

    name: str
    val_loss: float
    probe_layer: int | None
    val_accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True)
class Study:
    """A study: what it is of, where it goes, and once it is planned its runs."""

    config: str
    folder: Path
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    base: TransformerConfig
    batch: int
    causal: bool
    probe: bool
    runs: tuple[Planned, ...] = ()
    rate: str = "fixed"

    def planned(
        self,
        budgets: int,
        sizes: int,
        ends: tuple[float | None, float | None],
        ratios: Sequence[float] | None,
        rate: str,
    ) -> "Study":
        """The study with its runs; a UserError where the numbers make none."""
        few, many = pair = tuple(ratios or RATIOS) if len(ratios or RATIOS) == 2 else (1.0, 0.0)
        if not 0 < few < many < math.inf:
            raise UserError(f"--ratios {ratios}: give the fewest and the most tokens a parameter, such as 5 500")
        if rate == "width" and "learning_rate" not in self.settings["model"].get("init_args", {}):
            raise UserError("--rate width: the config has no model.init_args.learning_rate to begin with; give one")
        levels = geometric(*self.ends(ends, budgets), budgets)
        runs = plan(self.base, levels, sizes, self.batch, self.causal, (pair[0], pair[1]))
        return replace(self, runs=tuple(runs), rate=rate)

    def ends(self, given: tuple[float | None, float | None], budgets: int) -> tuple[float, float]:
        """Smallest and largest budget."""
        smallest, largest = given
        if largest is None and smallest is None:
            steps = (self.settings.get("trainer") or {}).get("max_steps")
            if not isinstance(steps, int) or steps < 1:
                raise UserError("--largest: the config has no trainer.max_steps to go by; give the largest budget")
            largest = float(steps * training_operations(self.base, self.batch, self.causal))
        span = STEP ** (budgets - 1)
        largest = largest if largest is not None else (smallest or 0) * span
        smallest = smallest if smallest is not None else largest / span
        if not 0 < smallest < largest < math.inf:
            raise UserError(
                f"--smallest {smallest:g} --largest {largest:g}: give two numbers above 0, the second larger"
            )
        return smallest, largest

    def words(self, run: Planned) -> list[list[str]]:
        """The commands of a run: to train it, and to probe it."""
        shape = {name: getattr(run, name) for name in ("n_layers", "d_model", "n_heads")}
        options = {f"model.init_args.transformer.{name}": value for name, value in shape.items()}
        options |= {"model.init_args.warmup_steps": run.warmup, "trainer.max_steps": run.steps}
        if self.rate == "width":
            given = float(self.settings["model"]["init_args"]["learning_rate"])
            options["model.init_args.learning_rate"] = f"{given * self.base.d_model / run.d_model:.6g}"
        options |= {"trainer.val_check_interval": run.steps, "trainer.check_val_every_n_epoch": "null"}
        options |= {"samples.num": 0, "trainer.enable_progress_bar": "false", "ckpt_path": "last"}
        fit = ["fit", "--config", self.config, *(f"--{override}" for override in self.overrides)]
        fit += ["--name", run.name, "--runs_dir", str(self.folder)]
        fit += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [fit, ["probe", "--ckpt", str(self.folder / run.name)]] if self.probe else [fit]

    def content(self, results: Sequence[Result]) -> dict[str, Any]:
        """What scale.json holds before there are fits."""
        planned = [asdict(run) for run in self.runs]
        content = {"settings": self.settings, "rate": self.rate, "probe": self.probe, "planned": planned}
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
        return {"config": self.config, **plain, "results": [asdict(result) for result in results]}

    def check_folder(self) -> None:
        """Raise a UserError where the folder holds another study, or what is of none."""
        record = self.folder / RECORD
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"--out {self.folder} is a file; name a folder")
        if record.exists():
            try:
                old = json.loads(record.read_text(encoding="utf-8"))
                off = [name for name in ("settings", "rate", "probe", "planned") if old[name] != self.content(())[name]]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{record} was not written by igpt scale; give another --out") from error
            if off:
                keys = differences(old["settings"], self.content(())["settings"]) or ["budgets, sizes or options"]
                raise UserError(
                    f"--out {self.folder} holds another study ({', '.join(keys)} differ); give another --out"
                )
        names = "|".join(re.escape(run.name) for run in self.runs)
        known = re.compile(rf"\..*|scale\.(json|md|png)|({names})(\.\d+|\.log)?")
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if not known.fullmatch(path.name):
                raise UserError(
                    f"--out {self.folder} holds {path.name}, which is not of this study; give another --out"
                )

    def train(self) -> list[Result]:
        """Do all runs that are not done, in their order; the record is written after each."""
        results: list[Result] = []
        for number, run in enumerate(self.runs, 1):
            log = self.folder / f"{run.name}.log"
            if not self.is_trained(run):
                print(f"run {number} of {len(self.runs)}, {run.name}: {run.steps:,} steps, see {log}", flush=True)
                started(self.words(run)[0], log)
            if self.probe and not (self.folder / run.name / "probe" / "probe.json").exists():
                started(self.words(run)[1], log)
                remove(self.folder / run.name / "probe" / "features")  # of all runs together, they would fill a disk
            results.append(self.result(run))
            with atomic_path(self.folder / RECORD) as path:
                path.write_text(json.dumps(self.content(results), indent=2) + "\n", encoding="utf-8")
        return results

    def is_trained(self, run: Planned) -> bool:
        """Whether a run came to its last step."""
        try:
            found = json.loads((self.folder / run.name / "result.json").read_text(encoding="utf-8"))
            return bool(found["steps"] == run.steps and found["stopped"] is None)
        except (OSError, ValueError, KeyError):
            return False

    def result(self, run: Planned) -> Result:
        """What a run that is done has written; a UserError where its loss was lost."""
        folder = self.folder / run.name
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if found["stopped"] or found["val_loss"] is None:
            raise UserError(
                f"{folder}: {found['stopped'] or 'no validation loss'}; give a smaller rate and another --out"
            )
        if not self.probe:
            return Result(run.name, found["val_loss"], None, None, None)
        probed = json.loads((folder / "probe" / "probe.json").read_text(encoding="utf-8"))["methods"]["lbfgs"]
        best = next(row for row in probed["layers"] if row["layer"] == probed["best_layer"])
        return Result(run.name, found["val_loss"], best["layer"], best["val_accuracy"], best["test_accuracy"])


def started(words: list[str], log: Path) -> None:
    """Run one command; a UserError in its own words where it refused."""
    code = attached(words, log)
    said = log.read_text(encoding="utf-8", errors="replace")
    if code == 2:
        lines = re.findall(rf"(?m)^igpt {words[0]}: (.*)$", said) or [f"igpt {words[0]} refused; see {log}"]
        raise UserErrors([UserError(line) for line in lines])
    if code not in (0, LOST):
        raise RuntimeError(f"igpt {words[0]} broke off with exit code {code}; see {log}; the same command goes on")


def studied(config: str, out: str | None, overrides: Sequence[str], probe: bool) -> Study:
    """Read a config, and what of it the plan needs."""
    source = Path(find_config(config))
    check_config(source)
    settings = read_settings(source.read_text(encoding="utf-8"), overrides, config)
    model, data = settings["model"], (settings.get("data") or {}).get("init_args") or {}
    kind, arguments = str(model.get("class_path")).rpartition(".")[2], model.get("init_args") or {}
    if kind not in CAUSAL:
        raise UserError(
            f"--config {config} is of {kind}; a study scales {' or '.join(CAUSAL)}, so give a config of one"
        )
    base = base_of(RECIPES.get(str(model.get("recipe")), {}), arguments, data)
    trainer = settings.get("trainer") or {}
    counts = (data.get("batch_size"), trainer.get("accumulate_grad_batches") or 1, trainer.get("devices", 1))
    if not isinstance(counts[0], int):
        raise UserError(f"--config {config} has no data.init_args.batch_size; give one, since a step costs as much")
    batch = math.prod(count for count in counts if isinstance(count, int) and count > 0)
    folder = Path(out) if out else Path(settings.get("runs_dir", "runs")) / f"scale_{config_name(source)}"
    return Study(config, folder, settings, tuple(overrides), base, batch, CAUSAL[kind], probe)


def base_of(recipe: dict[str, Any], arguments: dict[str, Any], data: dict[str, Any]) -> TransformerConfig:
    """The network of a config; positions follow from the resolution, colours from the palette, where they are open."""
    fields = {**recipe.get("transformer", {}), **(arguments.get("transformer") or {})}
    if not fields.get("n_positions"):
        if not data.get("resolution"):
            raise UserError(
                "--config: give data.init_args.resolution or transformer.n_positions, which a step costs by"
            )
        fields["n_positions"] = math.prod(shape_of(data["resolution"]))
    if not fields.get("vocab_size"):
        fields["vocab_size"] = colors_of(arguments.get("palette"))
    return TransformerConfig.of(fields)


def write(study: Study, results: Sequence[Result]) -> str:
    """Fit all measures; write scale.json with the fits, scale.png and scale.md, and return its text."""
    columns = [
        np.array([getattr(run, name) for run in study.runs], float) for name in ("budget", "parameters", "tokens")
    ]
    losses = [one.val_loss for one in results]
    measures = [
        Measure("Loss", "validation loss, nats per pixel", losses, fit_study(*columns, np.array(losses)), ".4f")
    ]
    if study.probe:
        shares = [float(one.test_accuracy or 0) for one in results]
        fit = fit_study(*columns, np.array(shares), maximise=True)
        measures.append(Measure("Accuracy", "test accuracy of the best layer", shares, fit, ".3f"))
    fits = {measure.name.lower(): asdict(measure.fit) for measure in measures}
    text = page(study.config, study.runs, measures, "scale.png")
    with atomic_path(study.folder / RECORD) as record, atomic_path(study.folder / "scale.md") as plain:
        with atomic_path(study.folder / "scale.png") as picture:
            draw(picture, study.runs, measures)
            plain.write_text(text, encoding="utf-8")
            record.write_text(json.dumps({**study.content(results), "fits": fits}, indent=2) + "\n", encoding="utf-8")
    return text
