"""What the TensorBoard files of a run hold. A file that is cut short or foreign gives what can be read of it."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from igpt.report.records import Events, Picture, Point

SHOWN = ("samples", "completions")
NEWEST = 1  # pictures kept of each tag
ALL = 0


def read_events(folder: Path) -> Events:
    """Scalars and pictures of all events files in `folder`, the later file winning where two know the same step.

    Lightning writes a scalar after step n with the number n - 1; here n stands. `validate` and `test` write files of
    their own, at step 0, which are no part of a curve, and pictures in them none of training.
    """
    curves: dict[str, dict[int, float]] = {}
    tested: dict[str, float] = {}
    pictures: dict[str, Picture] = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=age):
        read = accumulate(path)
        tags = read.Tags()
        training = any(tag.startswith("train/") for tag in tags["scalars"])
        for tag in tags["scalars"]:
            points = [(event.step, float(event.value)) for event in read.Scalars(tag)]
            if tag.startswith("test/"):
                tested[tag] = points[-1][1]
            elif training or any(step > 0 for step, _ in points):
                curves.setdefault(tag, {}).update({step + 1: value for step, value in points})
        for tag in set(tags["images"]) & set(SHOWN) if training else ():
            image = read.Images(tag)[-1]
            pictures[tag] = Picture(image.encoded_image_string, f"drawn while training, at step {image.step:,}")
    ordered = {tag: [Point(*item) for item in sorted(points.items())] for tag, points in curves.items()}
    return Events(ordered, tested, pictures)


def age(path: Path) -> tuple[float, str]:
    """Files in the order in which they were begun, which their names tell."""
    stamp = path.name.removeprefix("events.out.tfevents.").partition(".")[0]
    return (float(stamp) if stamp.isdigit() else 0.0, path.name)


def accumulate(path: Path) -> Any:
    """TensorBoard's reader of one file; it stops by itself where the file is damaged."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    sizes = {"scalars": ALL, "images": NEWEST, "histograms": NEWEST, "tensors": NEWEST}
    accumulator: Any = EventAccumulator(str(path), size_guidance=sizes)
    return accumulator.Reload()


def thinned(points: list[Point], most: int) -> list[Point]:
    """At most `most` points: means of as many runs of neighbours, each at its last step."""
    if len(points) <= most:
        return points
    edges = [round(index * len(points) / most) for index in range(most + 1)]
    groups = [points[first:last] for first, last in pairwise(edges)]
    return [replace(group[-1], value=sum(p.value for p in group) / len(group)) for group in groups]
