"""The study of `igpt scale`: its config, its numbers, and the commands of its runs."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from igpt.commands.tune import read_settings
from igpt.data import shape_of
from igpt.evaluation import open_space
from igpt.model import TransformerConfig
from igpt.modules import colors_of
from igpt.parsing import RECIPES, check_config, config_name
from igpt.scaling import Planned, geometric, plan, training_operations
from igpt.system import UserError, find_config

CAUSAL = {"Autoregressive": True, "BERT": False}  # the classes that can be scaled
STEP = 4.0  # between budgets, where only one of their ends is given
RATIOS = (5.0, 500.0)


@dataclass(frozen=True)
class Samples:
    """How the samples of each run are judged, as options of `igpt evaluate`; `num` 0 is not at all."""

    source: str = "pixels"
    weights: str | None = None
    layer: str | None = None
    num: int | None = None

    def check(self) -> None:
        """Raise a UserError for a number that cannot be judged, or a source that is not there."""
        if self.num is not None and self.num != 0 and self.num < 10:
            raise UserError(f"--num {self.num}: give at least 10 samples a run, or 0 for none")
        if self.num != 0:
            open_space(self.source, self.weights, self.layer)

    def words(self) -> list[str]:
        """As options."""
        return [word for name, value in asdict(self).items() if value is not None for word in (f"--{name}", str(value))]

    def fits(self, found: dict[str, Any]) -> bool:
        """Whether an evaluate.json is of these samples."""
        space = found["space"]
        counted = self.num in (None, found["figures"]["samples"]["images"])
        layers = (None, space["layer_name"], str(space["layer"]))
        return bool(space["source"] == self.source and counted and self.layer in layers)


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
    samples: Samples
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
        """The commands of a run: to train it, to probe it, and to judge its samples."""
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
        found, made = [fit], ["--ckpt", str(self.folder / run.name)]
        found += [["probe", *made]] if self.probe else []
        return [*found, ["evaluate", *made, *self.samples.words()]] if self.samples.num != 0 else found


def studied(config: str, out: str | None, overrides: Sequence[str], probe: bool, samples: Samples) -> Study:
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
    return Study(config, folder, settings, tuple(overrides), base, batch, CAUSAL[kind], probe, samples)


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
