"""Probe results as JSON, CSV, text and a plot; reads and writes probe.json."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igpt.checkpoints import read_probe_record
from igpt.data import sampling_error
from igpt.probing.likelihood import ImageLikelihood
from igpt.probing.methods import METHODS, MethodResults
from igpt.probing.protocol import RAW_PIXELS, LayerResult, ProbeMethod, ProbeTask, best_layer
from igpt.system import atomic_path, check_own, in_one_line, move_aside, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAME = ("checkpoint_sha256", "identity", "images", "features")  # in which probes agree whose results belong together
NOT_COMPARED = {"num_workers", "device_gib"}  # arguments of data that change no figure
INDICES = "into the data's labelled training images"
RECORD, TABLE, PLOT, SUBSETS = "probe.json", "probe.csv", "layers.png", "low_data.json"
SAVED = "probe.safetensors"  # of `igpt.probing.saved`


def to_dict(results: MethodResults) -> dict[str, Any]:
    """One method's results as plain data; `best_layer` is the best on validation."""
    best, chosen = best_layer(results.layers), results.method.chosen
    pixels = results.pixels.row(chosen) if results.pixels else {}
    return {
        "best_layer": best.layer,
        "best_test_accuracy": best.test_accuracy,
        "layers": [result.row(chosen) for result in results.layers],
        "raw_pixels": {key: value for key, value in pixels.items() if key != "layer"} or None,
        "concat": {"method": results.method.name, **results.concat.row(chosen)} if results.concat else None,
        "settings": results.settings,
        "protocol": results.method.how,
    }


def from_dict(name: str, found: dict[str, Any]) -> MethodResults:
    """The results that `to_dict` wrote down; a KeyError or TypeError where they are not whole."""
    method, pixels, concat = METHODS[name], found["raw_pixels"], found["concat"]
    return MethodResults(
        method,
        [LayerResult.of(row, method.chosen) for row in found["layers"]],
        LayerResult.of({**pixels, "layer": RAW_PIXELS}, method.chosen) if pixels else None,
        LayerResult.of(concat, method.chosen) if concat else None,
        found.get("settings", {}),
    )


@dataclass(frozen=True)
class ProbeReport:
    """What `igpt probe` writes: the protocol, results of each method, and low-data summaries with their indices.

    Beside them the likelihood of test images, where the network has one.
    """

    protocol: dict[str, Any]
    results: list[MethodResults] = field(default_factory=list)
    low_data: list[dict[str, Any]] = field(default_factory=list)
    low_data_indices: Mapping[str, list[list[int]]] = field(default_factory=dict)  # of each number of labels a class
    likelihood: ImageLikelihood | None = None

    def write(self, out: Path, earlier: "ProbeReport | None" = None) -> tuple[list[str], Path | None]:
        """Write probe.json, probe.csv, layers.png, and low_data.json where there is one; say their names.

        The results of `earlier` are kept beside these. Without it, files of an earlier command are moved to a folder
        beside `out`, which is also returned.
        """
        there = any((out / name).exists() for name in (RECORD, TABLE, PLOT, SUBSETS))
        aside = move_aside(out, [TABLE, PLOT, SUBSETS, SAVED, RECORD]) if there and earlier is None else None
        earlier = earlier or NOTHING
        own = {results.method.name for results in self.results}
        results = self.results + [found for found in earlier.results if found.method.name not in own]
        new = {row["labels_per_class"] for row in self.low_data}
        kept = [row for row in earlier.low_data if row["labels_per_class"] not in new]
        low_data = sorted(kept + self.low_data, key=lambda row: int(row["labels_per_class"]))
        methods = {one.method.name: to_dict(one) for one in results}
        name, first = next(iter(methods.items()))
        content = {
            **self.protocol,
            **({"likelihood": self.likelihood.to_dict()} if self.likelihood else {}),
            "earlier_commands": [
                one for one in earlier.protocol["earlier_commands"] if one != self.protocol["command"]
            ],
            "method": name,
            **{key: first[key] for key in ("best_layer", "best_test_accuracy", "layers", "raw_pixels", "concat")},
            "methods": methods,
            "low_data": low_data,
        }
        if low_data:
            subsets = {"indices": INDICES, "subsets": {**earlier.low_data_indices, **self.low_data_indices}}
            with atomic_path(out / SUBSETS) as path:
                path.write_text(json.dumps(subsets) + "\n", encoding="utf-8")
        with atomic_path(out / TABLE) as path:
            write_csv(results, path)
        with atomic_path(out / PLOT) as path:
            figure_of(results, self.protocol).savefig(path, dpi=130, format="png")
        with atomic_path(out / RECORD) as path:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return [RECORD, TABLE, PLOT, *([SUBSETS] if low_data else [])], aside

    def kept(self, asked: Mapping[Any, Any]) -> "ProbeReport":
        """The part that `asked` names, methods in its order, so that it need not be measured again."""
        by_name = {found.method.name: found for found in self.results}
        rows = [row for row in self.low_data if row["labels_per_class"] in asked]
        return replace(self, results=[by_name[name] for name in asked if name in by_name], low_data=rows)

    def text(self) -> str:
        """The tables that `igpt probe` prints."""
        parts = [text_table(results) for results in self.results]
        for results in self.results:
            name, best = results.method.name, best_layer(results.layers)
            beside = f" (raw pixels {percent(results.pixels.test_accuracy)})" if results.pixels else ""
            parts.append(f"{name}: best layer {best.layer}, test accuracy {percent(best.test_accuracy)}{beside}")
        parts += [
            f"{row['labels_per_class']:>4} labels a class: test {100 * row['mean_test_accuracy']:.1f} "
            f"± {100 * row['std_test_accuracy']:.1f} % over {row['subsets']} subsets"
            for row in self.low_data
        ]
        return "\n".join([*parts, *([self.likelihood.text()] if self.likelihood else [])])


NOTHING = ProbeReport({"earlier_commands": []})


def earlier_report(out: Path, protocol: dict[str, Any], asked: Mapping[Any, Any]) -> ProbeReport | None:
    """The report in `out`, if it is whole and can be kept beside what is `asked` for.

    It is then of the same checkpoint, data and features, and measured nothing in another way. `earlier_commands` has
    its own command too.
    """
    try:
        found = read_probe_record(out / RECORD)
        found["earlier_commands"] = [*found["earlier_commands"], found["command"]]
        results = [from_dict(method, one) for method, one in found["methods"].items()]
        rows = found["low_data"]
        indices = json.loads((out / SUBSETS).read_text(encoding="utf-8"))["subsets"] if rows else {}
        likely = found.pop("likelihood", None)
        known = ImageLikelihood(**likely) if likely else None
        had = measured(results, rows)
        same = same_subject(found, protocol) and all(had[name] == asked[name] for name in had.keys() & asked.keys())
        return ProbeReport(found, results, rows, indices, known) if same else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def same_subject(earlier: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two protocols are of the same checkpoint, data and features."""
    loaded = [
        {name: value for name, value in about["data"]["init_args"].items() if name not in NOT_COMPARED}
        for about in (earlier, new)
    ]
    return all(earlier[key] == new[key] for key in SAME) and loaded[0] == loaded[1]


def measured(results: list[MethodResults], low_data: list[dict[str, Any]]) -> dict[Any, tuple[Any, ...]]:
    """What a report holds, by method and size of subsets; equal values are the same measurement."""
    few = {row["labels_per_class"]: (row["subsets"], row.get("layers")) for row in low_data}
    return few | {
        one.method.name: ([r.layer for r in one.layers], len(one.concat.layers) if one.concat else 0, one.settings)
        for one in results
    }


def asked_for(task: ProbeTask, methods: list[ProbeMethod]) -> dict[Any, tuple[Any, ...]]:
    """What a command is to measure, in the form of `measured`."""
    layers, options = task.layers, task.options
    few = dict.fromkeys(options.labels_per_class or [], (options.subsets, layers))
    return few | {one.name: (layers, options.concat or 0, one.settings(task)) for one in methods}


def check_results(out: Path) -> None:
    """Raise a UserError for a folder in which a file of the user's has the name of a result."""

    def has(name: str, words: tuple[bytes, ...]) -> bool:
        with (out / name).open("rb") as file:
            head = file.read(1000)
        return (out / RECORD).is_file() and all(word in head for word in words)

    check_own(out / RECORD, lambda path: {"checkpoint", "layers", "best_layer"} <= json.loads(path.read_bytes()).keys())
    check_own(out / TABLE, lambda path: has(TABLE, (b"layer", b"test_accuracy")))
    check_own(out / PLOT, lambda path: has(PLOT, (b"PNG", b"Matplotlib")))
    check_own(out / SUBSETS, lambda path: has(SUBSETS, (b'"indices"', b'"subsets"')))


def write_csv(all_results: list[MethodResults], path: Path) -> None:
    """One row a method and layer; raw pixels have the layer "pixels", a concatenation all of its own (2-3-4)."""
    chosen = dict.fromkeys(method.chosen for method in METHODS.values())
    names = ["method", "layer", *chosen, "val_accuracy", "test_accuracy", "train_accuracy"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        for results in all_results:
            for result in filter(None, (*results.layers, results.concat, results.pixels)):
                row = result.row(results.method.chosen) | {"method": results.method.name}
                if result is results.pixels:
                    row["layer"] = "pixels"
                elif "layers" in row:
                    row["layer"] = "-".join(map(str, row.pop("layers")))
                writer.writerow(row)


def text_table(results: MethodResults) -> str:
    """One method's table; the best layer by validation accuracy is marked."""
    best = best_layer(results.layers)
    lines = [f"  layer   {results.method.chosen:>8}       val     test   ({results.method.name})"]

    def write(name: str, result: LayerResult, mark: str = "") -> str:
        chosen = format(result.chosen, results.method.number)
        return f"{name:>7}   {chosen}   {percent(result.val_accuracy):>7}  {percent(result.test_accuracy):>7}{mark}"

    for result in results.layers:
        lines.append(write(str(result.layer), result, "  <- best on validation" if result is best else ""))
    if results.concat:
        lines.append(write(f"{results.concat.layers[0]}-{results.concat.layers[-1]}", results.concat, "  concatenated"))
    if results.pixels:
        lines.append(write("pixels", results.pixels))
    return "\n".join(lines)


def figure_of(all_results: list[MethodResults], about: dict[str, Any]) -> "Figure":
    """Accuracy against layer, as figure 2 of the paper, a colour a method, with raw pixels as a line.

    `about` is the protocol: the title says of which run and data, and bars are one standard error of the test split.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for number, results in enumerate(all_results):
        color = f"C{number}"
        layers = [result.layer for result in results.layers]
        tested = [100 * result.test_accuracy for result in results.layers]
        bars = [100 * sampling_error(result.test_accuracy, about["images"]["test"]) for result in results.layers]
        label = f"{results.method.name}, test"
        axes.errorbar(layers, tested, yerr=bars, fmt="o-", capsize=3, color=color, label=label)
        if len(all_results) == 1:
            axes.plot(layers, [100 * r.val_accuracy for r in results.layers], "s--", alpha=0.6, label="validation")
        if results.pixels:
            label = f"raw pixels, {results.method.name}"
            axes.axhline(100 * results.pixels.test_accuracy, color=color, linestyle=":", label=label)
        best = best_layer(results.layers)
        star = "best on validation" if number == 0 else "_nolegend_"
        axes.plot([best.layer], [100 * best.test_accuracy], "*", markersize=15, color="tab:red", label=star)
    axes.set_xlabel("layer (0: input of the first block)")
    axes.set_ylabel("probe accuracy, %; bars: one standard error")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)  # never over a point
    place = Path(about["checkpoint"]).absolute()
    run = place.parents[1].name if place.parent.name == "checkpoints" else place.name.removesuffix(".ckpt")
    what = [about["data"]["class_path"].split(".")[-1], *(results.method.name for results in all_results)]
    title = f"{in_one_line(run)[:60]}, step {about['step']}\n{', '.join(what)}"
    drawn = title.encode("latin-1", "replace").decode("latin-1")  # the font lacks other letters
    axes.set_title(drawn, fontsize=10, parse_math=False)
    return figure
