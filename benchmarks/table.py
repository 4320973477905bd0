"""Renders the tables of docs/performance.md, between its two marker comments, from results.json.

python benchmarks/table.py [--results FILE] [--doc FILE]
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness import RESULTS
from plan import MFU, plan_table
from results import read

from igpt.system import atomic_path

DOC = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
NO_GPU = "On a GPU (`--device cuda`) these comparisons are not measured; what one H100 did is [below](#on-one-h100)."
GPU_UNITS = (
    "images/s",
    "tokens/s",
    "seconds",
    "ms",
    "bf16 operations/s",
    "tf32 operations/s",
    "fp32 operations/s",
    "bytes/s",
)
FIRST = ("training", "features", "sampling", "completing", "encoding", "JPEG", "tokenising", "palette", "linear")


def rendered(kept: dict[str, Any]) -> str:
    """Everything between the markers."""
    rows = sorted(kept["rows"].values(), key=lambda row: (place(row["work"]), row["work"]))
    if not rows:
        return "Not measured yet; `make bench` fills this in."
    parts = [circumstances(rows, kept["peaks"]), table(ratio_cells(rows)), notes(rows), gpu_line(kept["peaks"])]
    if kept["growth"]:
        parts += ["### Growth", table(growth_cells(kept["growth"]))]
    if kept["gpu"]:
        parts += ["### On a GPU", gpu_words(kept["gpu"]), table(gpu_cells(kept["gpu"]))]
    cpu = kept["peaks"].get("cpu")
    parts += ["### The paper's schedules, computed", plan_words(cpu), table(plan_table(cpu and cpu["bf16"]))]
    return "\n\n".join(parts)


def place(work: str) -> int:
    """Order of the kinds of work."""
    return next((number for number, start in enumerate(FIRST) if work.startswith(start)), len(FIRST))


def table(rows: Iterable[list[str]]) -> str:
    """Markdown; the first row is the head."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def ratio_cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """One line a comparison."""
    cells = [["work", "side", "beside", "rate", "its rate", "ratio", "asked", "of the bound", "memory"]]
    for row in rows:
        low, high = row["spreads"]["ratio"]
        asked = "" if row["at_least"] is None else f"{row['at_least']:.3g}" + ("" if met(row) else " **missed**")
        cells.append(
            [
                row["work"],
                row["side"],
                row["peer"],
                rate(row, "ours"),
                rate(row, "peer"),
                f"**{row['ratio']:.3g}** ({low:.3g} to {high:.3g})",
                asked,
                fraction(row["bound"]),
                " / ".join(f"{row['peak_bytes'][side] / 2**30:.1f}" for side in ("ours", "peer")) + " GiB",
            ]
        )
    return cells


def met(row: dict[str, Any]) -> bool:
    """Whether the ratio is what was asked for."""
    return bool(row["ratio"] >= row["at_least"])


def rate(row: dict[str, Any], side: str) -> str:
    """Median and spread."""
    median = row["ours" if side == "ours" else "peer_rate"]
    low, high = row["spreads"][side]
    return f"{median:,.4g} {row['unit']}/s ({low:,.3g} to {high:,.3g})"


def fraction(bound: dict[str, Any] | None) -> str:
    """Share of the measured peak."""
    if bound is None:
        return ""
    name = "operations" if bound["kind"] == "operations" else "memory"
    return f"{100 * bound['fraction']:.2g} % of {name}"


def notes(rows: list[dict[str, Any]]) -> str:
    """What was compared before the clocks ran."""
    noted = [f"- {row['work']}, {row['side']} beside {row['peer']}: {row['note']}" for row in rows if row["note"]]
    return "\n".join(noted)


def circumstances(rows: list[dict[str, Any]], peaks: dict[str, Any]) -> str:
    """Dates, machine, versions, threads and peaks."""
    words = [f"Measured on {joined(row['date'] for row in rows)}"]
    words += [joined("{cpu}, {cores} cores, {memory_gib} GiB".format(**row["machine"]) for row in rows)]
    words += [joined(f"{row['threads']}" for row in rows) + " threads; " + joined(map(versions, rows))]
    text = "; ".join(words) + ". Medians of rounds in turn, their least and most in brackets."
    for peak in peaks.values():
        text += (
            f" Measured peaks ({peak['device']}): {peak['bf16'] / 1e9:,.0f} GFLOP/s in bfloat16, "
            f"{peak['fp32'] / 1e9:,.0f} in float32, reading {peak['dram'] / 1e9:,.0f} GB/s from memory and "
            f"{peak['cache'] / 1e9:,.0f} from the cache."
        )
    return text


def versions(row: dict[str, Any]) -> str:
    """Of the libraries that took part."""
    return ", ".join(f"{name} {number}" for name, number in row["versions"].items() if number)


def joined(values: Iterable[str]) -> str:
    """Different values once each; there is one where all rows are of one run."""
    return " and ".join(sorted(set(values)))


def gpu_line(peaks: dict[str, Any]) -> str:
    """What is known of GPUs."""
    return NO_GPU if set(peaks) <= {"cpu"} else ""


def gpu_words(gpu: dict[str, Any]) -> str:
    """Card, date and versions."""
    facts = joined(f"{row['device']}, {row['date']}, {versions(row)}" for row in gpu.values())
    return f"`make bench-gpu`: {facts}. Of the peak: of the bfloat16 product of 8192^3 that was measured first."


def gpu_cells(gpu: dict[str, Any]) -> list[list[str]]:
    """One line a row of `benchmarks/gpu.py`."""
    cells = [["work", "batch", "rate", "of the peak", "GiB"]]
    peak = gpu.get("ceilings", {}).get("bf16 operations/s")
    for name, row in gpu.items():
        shown = [f"{figure(row[unit])} {unit}" for unit in GPU_UNITS if unit in row] or [
            row.get("failed") or row["left out"]
        ]
        share = f"{100 * row['operations/s'] / peak:.0f} %" if peak and "operations/s" in row else ""
        memory = f"{row['GiB']:.1f}" if row.get("GiB") else ""
        cells.append([name, str(row.get("batch", row.get("images", ""))), ", ".join(shown), share, memory])
    return cells


def figure(value: float) -> str:
    """Four digits, and thousands written out."""
    return f"{value:,.0f}" if 1e3 <= value < 1e9 else f"{value:.4g}"


def growth_cells(growth: dict[str, Any]) -> list[list[str]]:
    """One line a case, in the order of size."""
    cells = [["training step", "tokens", "layers", "batch", "recomputing", "time", "peak memory"]]
    for name, case in sorted(growth.items(), key=lambda item: size_of(item[1])):
        measured = [case["missing"], ""] if "missing" in case else [f"{case['seconds']:.2f} s", gib(case)]
        facts = [str(case[key]) for key in ("n_positions", "n_layers", "batch")]
        cells.append([name, *facts, "yes" if case["recompute"] else "no", *measured])
    return cells


def size_of(case: dict[str, Any]) -> tuple[int, ...]:
    """To sort by."""
    return tuple(case[key] for key in ("d_model", "n_positions", "n_layers", "batch", "recompute"))


def gib(case: dict[str, Any]) -> str:
    """Memory as text."""
    return f"{case['peak_bytes'] / 2**30:.2f} GiB"


def plan_words(cpu: dict[str, Any] | None) -> str:
    """What the table of schedules rests on."""
    here = ", and of the peak measured above for this CPU" if cpu else ""
    return (
        "Computed: operations of forward and backward (for the two largest also of recompute) divided by what an H100 "
        "was measured to do per second at that size ([below](#on-one-h100)), or by the share of its 795 TFLOP/s that "
        f"is named as assumed; for the others by {100 * MFU:.0f} % of the makers' dense bfloat16 peaks, 312 and 165 "
        f"TFLOP/s for A100 and RTX 4090{here}. Whether it fits their memory is another matter ([scale.md](scale.md)). "
        "Forward: 2 * 12 L D^2 T, attention 4 L T^2 D / 2 (causal), head 2 T D V; the backward pass is twice that."
    )


def replaced(text: str, generated: str) -> str:
    """The document with its generated part exchanged.

    Raises:
        SystemExit: a marker is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the document needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--doc", type=Path, default=DOC)
    options = parser.parse_args()
    text = replaced(options.doc.read_text(), rendered(read(options.results)))
    with atomic_path(options.doc) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()
