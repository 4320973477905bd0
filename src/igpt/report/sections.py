"""The page's sections in their order, from records; a section without anything to show says so."""

from collections.abc import Sequence

from igpt.report import figures, pictures, tables
from igpt.report.content import Commands, Item, Prose, Section
from igpt.report.findings import all_findings
from igpt.report.missing import missing
from igpt.report.origins import data_sets, moved_aside
from igpt.report.records import Run


def sections(runs: list[Run], left_out: Sequence[str] = ()) -> list[Section]:
    """Everything about these runs, and the lines about what could not be read."""
    unread: list[Item] = [Prose("All that could be read is on this page. These could not:"), *map(Prose, left_out)]
    return [
        Section("Runs", [tables.summary(runs), data_sets(runs)]),
        *([Section("Left out", unread)] if left_out else []),
        Section("Findings of the paper in these runs", [about_findings(runs), *all_findings(runs)]),
        shown("Loss", figures.loss_curves(runs), "no events of training were found"),
        shown(
            "Features",
            [*figures.layer_curves(runs), figures.loss_against_accuracy(runs), figures.objectives(runs)],
            "no probe.json was found",
        ),
        shown("Palette and pictures", [*pictures.palettes(runs), *pictures.drawings(runs)], "no pictures were found"),
        shown("Generation: exact likelihood of the test images", [tables.likelihoods(runs)], "no scores.json has one"),
        shown("Few labels", [tables.low_data(runs)], "no probe.json and no fine-tuned run has such figures"),
        shown(
            "Figures and their protocol",
            [
                tables.probes(runs),
                tables.fine_tuned(runs),
                tables.published(runs),
                tables.losses_and_probes(runs),
                tables.all_layers(runs),
                moved_aside(runs),
            ],
            "",
        ),
        shown("What is missing", [missing(runs)], "nothing; every figure that this page knows is there"),
        shown("Commands", commands(runs), "no command is recorded in these folders"),
    ]


def shown(title: str, items: Sequence[Item | None], nothing: str) -> Section:
    """A section of what there is, or of one sentence where there is nothing."""
    found: list[Item] = [item for item in items if item is not None]
    return Section(title, found or [Prose(f"{nothing[:1].upper()}{nothing[1:]}.")])


def about_findings(runs: list[Run]) -> Prose:
    """What the verdicts are about, and what they are not."""
    data = ", ".join(sorted({run.data.label for run in runs}))
    return Prose(
        f"Each claim is looked for in these {len(runs)} run{'s' if len(runs) > 1 else ''} ({data}), by a rule that is "
        "stated with it. A verdict holds for these runs; it neither confirms nor refutes the paper's models and data."
    )


def commands(runs: list[Run]) -> list[Commands]:
    """The command lines that made each run and its figures, in the order in which they are found, each once."""
    found = []
    for run in runs:
        scored = [score.command for score in run.scores]
        probed = [probe.command for probe in run.probes]
        lines = list(dict.fromkeys(line for line in [*run.commands, *scored, *probed] if line))
        if lines:
            found.append(Commands(run.name, lines))
    return found
