"""What the TensorBoard files of a run hold. A file that is cut short or foreign gives what can be read of it."""

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from igpt.report.leaving import Say, attempt
from igpt.report.pictures import checked
from igpt.report.records import Events, Picture, Point

SHOWN = ("samples", "completions")
HEAD, FOOT = struct.Struct("<QI"), struct.Struct("<I")  # around a record: its length and a checksum; a checksum


def read_events(folder: Path, say: Say) -> Events:
    """Scalars and pictures of all events files in `folder`, the later file winning where two know the same step.

    Lightning writes a scalar after step n with the number n - 1; here n stands. `validate` and `test` write files of
    their own, at step 0, which are no part of a curve, and pictures in them none of training. A file that is cut short
    or damaged gives what stands before.
    """
    curves: dict[str, dict[int, float]] = {}
    tested: dict[str, float] = {}
    pictures: dict[str, Picture] = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=age):
        scalars, drawn = read_file(path, say) if path.is_file() else ({}, {})
        training = any(tag.startswith("train/") for tag in scalars)
        for tag, points in scalars.items():
            if tag.startswith("test/"):
                tested[tag] = points[-1].value
            elif training or any(point.step > 0 for point in points):
                curves.setdefault(tag, {}).update({point.step + 1: point.value for point in points})
        for tag, picture in drawn.items() if training else ():
            if found := attempt(partial(checked, picture, f"{path}: '{tag}'"), say, None):
                pictures[tag] = found
    ordered = {tag: [Point(*item) for item in sorted(points.items())] for tag, points in curves.items()}
    return Events(ordered, tested, pictures)


def age(path: Path) -> tuple[float, str]:
    """Files in the order in which they were begun, which their names tell."""
    stamp = path.name.removeprefix("events.out.tfevents.").partition(".")[0]
    return (float(stamp) if stamp.isdecimal() else 0.0, path.name)


def read_file(path: Path, say: Say) -> tuple[dict[str, list[Point]], dict[str, Picture]]:
    """Scalars of one file by tag, as they were written, and the newest picture of each tag that a page shows."""
    scalars: dict[str, list[Point]] = {}
    pictures: dict[str, Picture] = {}
    for event in events_of(path, say):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                scalars.setdefault(value.tag, []).append(Point(event.step, value.simple_value))
            elif value.HasField("image") and value.tag in SHOWN:
                origin = f"drawn while training, at step {event.step:,}"
                pictures[value.tag] = Picture(value.image.encoded_image_string, origin)
    return scalars, pictures


def events_of(path: Path, say: Say) -> Iterator[Any]:
    """TensorBoard's events of one file, up to its end or to where it is damaged, which is said."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

    count = 0
    try:
        with path.open("rb") as file:
            for content in records_of(file):
                yield Event.FromString(content)
                count += 1
    except (DecodeError, EOFError, OSError):
        why = "the next is damaged, or not whole, as it may be while a run trains"
        say(f"{path}: what comes behind its first {count} records; {why}")


def records_of(file: BinaryIO) -> Iterator[bytes]:
    """Contents of the records of a TFRecord file: a length and what is so long, a checksum behind each.

    Raises:
        EOFError: a record is not whole.
    """
    from tensorboard.summary.writer.record_writer import masked_crc32c  # type: ignore[import-untyped]

    size = os.fstat(file.fileno()).st_size
    while head := file.read(HEAD.size):
        length, checksum = HEAD.unpack(head.ljust(HEAD.size))
        if masked_crc32c(head[:8]) != checksum or file.tell() + length + FOOT.size > size:
            raise EOFError
        content = file.read(length)
        if masked_crc32c(content) != FOOT.unpack(file.read(FOOT.size))[0]:
            raise EOFError
        yield content


def thinned(points: list[Point], most: int) -> list[Point]:
    """At most `most` points: means of as many runs of neighbours, each at its last step."""
    if len(points) <= most:
        return points
    edges = [round(index * len(points) / most) for index in range(most + 1)]
    groups = [points[first:last] for first, last in pairwise(edges)]
    return [replace(group[-1], value=sum(p.value for p in group) / len(group)) for group in groups]
