"""`igpt runs`: what there is in a folder of runs, and the removal of one."""

from pathlib import Path

from igpt.checkpoints import step_checkpoints
from igpt.report import Run, gather_all, runs_in, warn
from igpt.system import UserError, check_unread, only_writer, remove_folder

HEADS = ("run", "model", "data", "steps", "val loss", "test loss", "best probe", "MB")


def runs(folder: str = "runs", remove: str | None = None) -> None:
    """List the runs of a folder: model, data, steps, losses in nats per pixel, best probe, size on disk.

    Args:
        folder: that holds runs.
        remove: name of a run to delete, with all its checkpoints, instead.
    """
    if remove is not None:
        remove_run(Path(folder), remove)
        return
    found = [str(path) for path in runs_in(Path(folder))]
    if not found:
        raise UserError(f"{folder} holds no runs; begin one with 'igpt fit --config digits_ar'")
    rows = [HEADS, *(row_of(run) for run in gather_all(found, warn))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def row_of(run: Run) -> tuple[str, ...]:
    """Cells of a run, empty where a figure is not there."""
    validated = None if run.steps is None else run.val_loss_at(run.steps)
    best = run.probe.result.best if run.probe else None
    tested = run.tested("accuracy") if run.objective == "Joint" else None
    return (
        run.name,
        run.objective if run.objective == run.core else f"{run.objective} on {run.core}",
        run.data.label,
        "" if run.steps is None else f"{run.steps:,}",
        f"{validated.value:.4f}" if validated else "",
        "" if (loss := run.tested(run.loss_tag)) is None else f"{loss:.4f}",
        f"{best.test_accuracy:.3f} at layer {best.layer}" if best else "" if tested is None else f"test {tested:.3f}",
        f"{sum(path.stat().st_size for path in Path(run.folder).rglob('*') if path.is_file()) / 1e6:,.1f}",
    )


def remove_run(folder: Path, name: str) -> None:
    """Delete one run.

    Raises:
        UserError: there is no run of this name in the folder, or another process uses it.
    """
    place = folder / name
    if Path(name).name != name or place.is_symlink() or place not in runs_in(folder):
        raise UserError(f"--remove {name}: {folder} holds no run of this name; 'igpt runs' lists those that it holds")
    with only_writer(place, "remove it then"):
        check_unread(place, "remove it then")
        saved = len(step_checkpoints(place / "checkpoints"))
        remove_folder(place)
    print(f"removed {place}, with {saved} checkpoints")
