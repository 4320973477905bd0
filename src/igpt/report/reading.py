"""From a run's folder to records. What cannot be read is left out and said in one line; all the rest stands."""

import io
import json
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY, LAST, META, is_run, read_checkpoint, read_meta, step_checkpoints
from igpt.data import decode_rgb
from igpt.palette import check_colors
from igpt.report.schema import Began, Count, Data, Events, Module, Picture, Point, Probe, Run, Score, is_number, load
from igpt.system import UserError, complain, in_one_line, same_file

Say = Callable[[str], object]  # takes a line about something that is left out
T = TypeVar("T")
UNKNOWN, NOTHING = Data("unknown data"), Module()
IMPORTED = "checkpoints/last.yaml"  # the config that `igpt import` writes beside its checkpoint
NOT_TRAINED = ("palette.colors", "pixel_order")  # tensors of a checkpoint that are no parameters
NO_DATA = {"batch_size", "num_workers", "device_gib", "augment", "download", "verify"}  # of a run, not of its data
NO_DATA |= {"labels_per_class", "subset_seed", "fold_validation", "split"}
MOVED = re.compile(r"\.\d+$")  # what a folder's name ends in that a later probe moved aside
SHOWN = ("samples", "completions")
HEAD, FOOT = struct.Struct("<QI"), struct.Struct("<I")  # around a TFRecord: length and its checksum; a checksum
NO_FOLDER = "there is no such folder; give the folder of a run, such as runs/digits_ar"
REDO = "make it again with 'igpt {}', or move it away"
IGPTS = "use a file that igpt wrote"


def warn(line: str) -> None:
    """Say on standard error that something is left out."""
    complain(f"igpt: warning: left out: {in_one_line(line)}")


def attempt(read: Callable[[], T], place: object, remedy: str, say: Say, otherwise: T) -> T:
    """What a reader returns; where its file is broken, the line about it is said and `otherwise` stands instead."""
    try:
        return read()
    except UserError as error:
        say(str(error))
    except OSError as error:
        say(f"{place} cannot be read ({error.strerror}); {remedy}")
    except json.JSONDecodeError:
        say(f"{place} is not readable JSON; {remedy}")
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        say(f"{place}: {in_one_line(str(error).partition(chr(10))[0])}; {remedy}")
    return otherwise


def read_text(path: Path, errors: str = "strict") -> str:
    """The text of a plain file; a pipe would be waited for."""
    if not path.is_file():
        raise ValueError("it is no readable file")
    return path.read_text(encoding="utf-8", errors=errors)


def inside(content: Any, name: str) -> dict[str, Any]:
    """A mapping within a mapping; an empty one where there is none."""
    found = load(dict[str, Any], content).get(name) or {}
    if not isinstance(found, dict):
        raise ValueError(f"field '{name}' is off")
    return found


def as_text(content: dict[str, Any]) -> str:
    """Plain data as text that is equal where they are; empty for nothing."""
    try:
        return json.dumps(content, sort_keys=True, default=str) if content else ""
    except TypeError as error:  # keys of several kinds
        raise ValueError("its data are no plain data") from error


def data_of(content: Any) -> Data:
    """What a record's `data` and `identity` say."""
    spec, identity = inside(content, "data"), inside(content, "identity")
    if "class_path" not in spec:
        return UNKNOWN
    given = inside(spec, "init_args")
    either = {**given, **inside(given, "split")}  # before there was `split`, its options stood beside the others
    arguments = {k: v for k, v in {**given, "val_share": either.get("val_share")}.items() if k not in NO_DATA}
    about = {
        "name": load(str, spec["class_path"]).rpartition(".")[2],
        "identity": as_text({name: value for name, value in identity.items() if name != "root"}),
        "arguments": as_text(arguments),
        **{name: identity.get(name) for name in ("root", "fingerprint", "classes")},
    }
    return load(Data, {**either, **about})


def read_probes(folder: Path, say: Say, aside: bool = False) -> list[Probe]:
    """Every probe.json of a run, the one in the folder `probe` itself last; or those that later probes moved aside."""
    found = [*folder.glob("probe.*/probe.json"), *folder.glob("probe/*/probe.json")]
    files = sorted((path for path in found if bool(MOVED.search(path.parent.name)) == aside), key=natural)
    if not aside:
        files = [path for path in files if path.parent.parent != folder] + [*folder.glob("probe/probe.json")]
    probes = [attempt(partial(read_probe, path), path, REDO.format("probe"), say, None) for path in files]
    return [probe for probe in probes if probe]


def natural(path: Path) -> list[str | int]:
    """A key for sorting, 2 before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


def read_probe(path: Path) -> Probe:
    """One probe.json, also of versions that knew one method and one kind of features only."""
    content = load(dict[str, Any], json.loads(read_text(path)))
    methods, method = inside(content, "methods"), load(str, content.get("method"))
    known = {"data": data_of(content), "methods": methods if method in methods else {**methods, method: content}}
    if "data" not in content:
        raise ValueError("field 'data' is missing or off")
    if isinstance(content.get("features"), str):
        known["features"] = {"norm": "normed", "grid": 1, "masks": 0, "standardise": True}
    return load(Probe, {**content, **known, "folder": path.parent})


def read_scores(path: Path, say: Say) -> list[Score]:
    """The entries of scores.json that can be read; none where there is no such file."""
    if not os.path.lexists(path):
        return []
    remedy = REDO.format("test")
    entries: list[Any] = attempt(lambda: load(list, json.loads(read_text(path))), path, remedy, say, [])
    found = [attempt(partial(read_score, entry), path, remedy, say, None) for entry in entries]
    return [score for score in found if score]


def read_score(entry: Any) -> Score:
    """One evaluation; of its metrics, which a user's module may have added to, all numbers."""
    data = data_of(entry) if inside(entry, "data") else None
    score = load(Score, {**entry, "data": data})
    metrics = {name: float(v) for name, v in score.metrics.items() if isinstance(v, float) or is_number(v)}
    return replace(score, metrics=metrics, checkpoint=Path(score.checkpoint).name)


def read_events(folder: Path, say: Say) -> Events:
    """Scalars and pictures of all events files in `folder`, the later file winning where two know the same step.

    Lightning writes a scalar after step n with the number n - 1; here n stands. `validate` and `test` write files of
    their own, at step 0, which are no part of a curve, and pictures in them none of training.
    """
    curves: dict[str, dict[int, float]] = {}
    events = Events()
    for path in sorted(folder.glob("events.out.tfevents.*"), key=age):
        scalars, drawn = read_file(path, say) if path.is_file() else ({}, {})
        training = any(tag.startswith("train/") for tag in scalars)
        for tag, points in scalars.items():
            if tag.startswith("test/"):
                events.tested[tag] = points[-1].value
            elif training or any(point.step > 0 for point in points):
                curves.setdefault(tag, {}).update({point.step + 1: point.value for point in points})
        kept = {tag: one for tag, one in drawn.items() if training and is_picture(one, f"{path}: '{tag}'", say)}
        events.pictures.update(kept)
    return replace(events, curves={tag: [Point(*p) for p in sorted(points.items())] for tag, points in curves.items()})


def age(path: Path) -> tuple[float, str]:
    """Files in the order in which they were begun, which their names tell."""
    stamp = path.name.removeprefix("events.out.tfevents.").partition(".")[0]
    return (float(stamp) if stamp.isdecimal() else 0.0, path.name)


def read_file(path: Path, say: Say) -> tuple[dict[str, list[Point]], dict[str, Picture]]:
    """Scalars of one file by tag, as they were written, and the newest picture of each tag that a page shows."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

    scalars: dict[str, list[Point]] = {}
    pictures: dict[str, Picture] = {}
    count = 0
    try:
        with path.open("rb") as file:
            for event in map(Event.FromString, tf_records(file)):
                count += 1
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        scalars.setdefault(value.tag, []).append(Point(event.step, value.simple_value))
                    elif value.HasField("image") and value.tag in SHOWN:
                        origin = f"drawn while training, at step {event.step:,}"
                        pictures[value.tag] = Picture(value.image.encoded_image_string, origin)
    except (DecodeError, EOFError, OSError):
        why = "the next is damaged, or not whole, as it may be while a run trains"
        say(f"{path}: what comes behind its first {count} records; {why}")
    return scalars, pictures


def tf_records(file: BinaryIO) -> Iterator[bytes]:
    """Contents of the records of a TFRecord file; one that is not whole raises EOFError."""
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


def is_picture(picture: Picture, place: str, say: Say) -> bool:
    """Whether a decoder reads it; that it does not is said."""
    try:
        decode_rgb(io.BytesIO(picture.content))
        return True
    except Exception:  # on broken files decoders raise anything
        say(f"{place} is no picture; draw it again or remove it")
        return False


def read_commands(folder: Path, say: Say) -> list[str]:
    """The command lines in commands.txt; none where there is no such file."""
    path = folder / "commands.txt"
    text = attempt(partial(read_text, path, "replace"), path, "move it away", say, "") if path.is_file() else ""
    return [line.strip() for line in text.split("\n") if line.strip()]


def read_picture(path: Path, say: Say) -> Picture | None:
    """A picture that `igpt sample` drew beside the run."""
    if not path.is_file():
        return None
    picture = Picture(attempt(path.read_bytes, path, "draw it again or remove it", say, b""), path.name)
    return picture if is_picture(picture, str(path), say) else None


@dataclass(frozen=True)
class Described:
    """What a config or a checkpoint's header says; the last five are of a checkpoint alone."""

    model: Module = NOTHING
    data: Data = UNKNOWN
    seed_everything: Count | None = None
    max_steps: int | None = None
    precision: Any = None
    ckpt_path: Any = None
    global_step: Count | None = None
    parameters: int | None = None
    palette: Any = None
    began: Began | None = None
    knows_beginning: bool = False  # else `began` of None says nothing


def read_config(path: Path) -> Described | None:
    """What config.yaml says; None where there is none."""
    if not os.path.lexists(path):
        return None
    content = load(dict[str, Any], yaml.safe_load(read_text(path)))
    if not inside(content, "model") or not inside(content, "data"):
        raise ValueError("it is not the config of a run")
    trainer, seed = inside(content, "trainer"), content.get("seed_everything")
    known = {name: trainer.get(name) for name in ("max_steps", "precision")}
    known |= {"data": data_of(content), "seed_everything": None if seed is True else seed}
    return load(Described, {**content, **known})


def read_header(path: Path) -> Described:
    """What one checkpoint says, a file or the folder of a sharded run, whose tensors are not looked at."""
    content = read_meta(path) if (path / META).is_file() else read_checkpoint(path)
    header = inside(content, CHECKPOINT_KEY)
    state = {name: value for name, value in inside(content, "state_dict").items() if isinstance(value, Tensor)}
    palette = next((value for name, value in state.items() if name.endswith("palette.colors")), None)
    known = {
        "model": header.get("model"),
        "data": data_of(header),
        "global_step": content.get("global_step"),
        "began": header.get("began"),
        "knows_beginning": "began" in header,
        "parameters": sum(value.numel() for name, value in state.items() if not name.endswith(NOT_TRAINED)) or None,
        "palette": None if palette is None else check_colors(palette, f"{path}: its palette"),
    }
    return load(Described, known)


def read_saved(folder: Path, say: Say) -> Described | None:
    """What the newest checkpoint that can be read says; None where there is none."""
    last = folder / LAST
    steps = [path for path in step_checkpoints(folder).values() if not same_file(path, last)]
    files = [*([last] if os.path.lexists(last) else []), *steps]
    found = (attempt(partial(read_header, path), path, IGPTS, say, None) for path in files)
    return next((saved for saved in found if saved), None)


def describe(path: Path, config: Described, saved: Described, say: Say) -> dict[str, Any]:
    """What kind of run this is, from its checkpoint's header, which goes before, and its config.

    Raises:
        UserError: neither names a model that igpt knows.
    """
    objective = saved.model.objective or config.model.objective
    if objective is None:
        raise UserError(f"run {path}: it is of no class of igpt.modules; give the folder of a run of igpt fit")
    ours, theirs = config.model.init_args, saved.model.init_args
    given = replace(ours, **{name: value for name, value in vars(theirs).items() if value is not None})
    start = ours.pretrained or ours.start_from or (ours.generative.init_args.start_from if ours.generative else None)
    began = saved.began or (Began(start) if start else None)
    common = {
        "began": began,
        "objective": objective,
        "data": config.data if saved.data == UNKNOWN else saved.data,
        "learning_rate": given.learning_rate,
        "parameters": saved.parameters,
        "palette": saved.palette,
        "steps": saved.global_step,
        "seed": config.seed_everything,
        "max_steps": config.max_steps,
        "precision": None if config.precision is None else str(config.precision),
    }
    if objective != "Joint":
        return {**common, "core": objective, "network": given.transformer, "order": given.order or "raster"}
    held = given.generative
    if held is None and start and os.path.isfile(start):
        source = attempt(partial(read_header, Path(start)), start, IGPTS, say, None)
        held = source.model if source else None
    held = held or NOTHING
    core = held.objective or "unknown"
    told = saved.knows_beginning or (ours.generative and not config.ckpt_path)  # a resumed run's config does not tell
    origin = core if began else "scratch" if told else None
    best = os.path.exists(path / "checkpoints" / "best.ckpt")
    return {
        **common,
        "core": core,
        "network": held.init_args.transformer,
        "order": held.init_args.order or "raster",
        "origin": origin,
        "weight": 1.0 if given.generative_weight is None else given.generative_weight,
        "evaluation": (given.evaluation or "mode", 5 if given.eval_masks is None else given.eval_masks),
        "checkpoint": "checkpoints/best.ckpt" if best else "checkpoints/last.ckpt",
    }


def gather(folder: str, say: Say = warn) -> Run:
    """Everything that the files of one run folder say; all is optional but config.yaml or a checkpoint.

    Raises:
        UserError: there is no such folder, or no file in it tells what kind of run it is.
    """
    path = Path(folder)
    if not os.path.isdir(path):
        raise UserError(f"run {folder}: {NO_FOLDER}")
    file = path / "config.yaml"
    config = attempt(partial(read_config, file), file, "put back the file that igpt fit wrote", say, None)
    saved = read_saved(path / "checkpoints", say)
    if config is None and saved is None:
        why = "holds neither config.yaml nor checkpoints that can be read; give the folder of a run of igpt fit"
        raise UserError(f"run {folder} {why}")
    kind = describe(path, config or Described(), saved or Described(), say)
    scores, events = read_scores(path / "scores.json", say), read_events(path, say)
    if os.path.lexists(path / "scores.json"):  # it alone tells on which data the tests were whose figures events hold
        events = replace(events, tested={})
    pictures = {name: read_picture(path / f"{name}.png", say) for name in SHOWN}
    tests = [score.data for score in scores if score.data and score.verb == "test"]
    on = [*(score.data for score in scores if score.data), *tests]
    if kind["data"] == UNKNOWN and on:
        kind["data"] = Data(on[-1].name, on[-1].resolution)
    return Run(
        name=os.path.basename(os.path.abspath(folder)),
        folder=folder,
        **kind,
        events=events,
        probes=[probe for _, probe in sorted({probe.step: probe for probe in read_probes(path, say)}.items())],
        aside=read_probes(path, say, aside=True),
        scores=scores,
        pictures={name: picture for name, picture in pictures.items() if picture},
        commands=read_commands(path, say),
        steps_saved=sorted(step_checkpoints(path / "checkpoints")),
        config=IMPORTED if config is None and os.path.exists(path / IMPORTED) else "config.yaml",
    )


def runs_in(folder: Path) -> list[Path]:
    """The runs that lie in a folder, by name, 2 before 10."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in inside if path.is_dir() and is_run(path)), key=natural)


def holds_runs(folder: str) -> bool:
    """Whether a folder is no run itself, but has some in it."""
    return not is_run(Path(folder)) and bool(runs_in(Path(folder)))


def gather_all(folders: list[str], say: Say = warn) -> list[Run]:
    """The runs in the order given, of a folder of runs all; one named twice counts once.

    Runs of equal names get their folders as names.

    Raises:
        UserError: no run is named, there is no such folder, or nothing is left.
    """
    if not folders:
        raise UserError("no run is named; give folders of runs, such as: igpt report runs/digits_ar --out report.html")
    places: dict[str, str] = {}
    for folder in [one for given in folders for one in (runs_in(Path(given)) if holds_runs(given) else [given])]:
        if not os.path.lexists(folder):
            raise UserError(f"run {folder}: {NO_FOLDER}")
        places.setdefault(os.path.realpath(folder), str(folder))
    if len(places) == 1:
        return told_apart([gather(next(iter(places.values())), say)])
    found = [attempt(partial(gather, folder, say), folder, "", say, None) for folder in places.values()]
    runs = told_apart([run for run in found if run])
    if not runs:
        raise UserError(f"none of these {len(places)} folders holds a run; give folders such as runs/digits_ar")
    names = Counter(run.name for run in runs)
    return [replace(run, name=run.folder) if names[run.name] > 1 else run for run in runs]


def told_apart(runs: list[Run]) -> list[Run]:
    """The runs with labels of data that are equal only where all that is known of the data is."""
    runs = [with_data(run, partial(identified, all_data(run))) for run in runs]
    found: dict[str, list[str]] = {}
    for data in (data for run in runs for data in all_data(run)):
        if data.identity not in found.setdefault(data.plain, []):
            found[data.plain].append(data.identity)

    def named(data: Data) -> Data:
        several = found[data.plain]
        return replace(data, apart=f"#{several.index(data.identity) + 1}" if len(several) > 1 else "")

    return [with_data(run, named) for run in runs]


def identified(others: list[Data], data: Data) -> Data:
    """Data without an identity, of an older version, with that of others of the same arguments, else with these."""
    same = (one for one in others if one.identity and (one.plain, one.arguments) == (data.plain, data.arguments))
    told = data if data.identity else next(same, replace(data, identity=data.arguments))
    about = {name: getattr(told, name) for name in ("identity", "root", "fingerprint", "classes")}
    return replace(data, **about)


def all_data(run: Run) -> list[Data]:
    """What a run was trained on, then what it was probed and scored on."""
    return [run.data, *(p.data for p in [*run.probes, *run.aside]), *(s.data for s in run.scores if s.data)]


def with_data(run: Run, change: Callable[[Data], Data]) -> Run:
    """The run with all its data changed."""
    probes, aside = ([replace(one, data=change(one.data)) for one in probes] for probes in (run.probes, run.aside))
    scores = [replace(one, data=change(one.data)) if one.data else one for one in run.scores]
    return replace(run, data=change(run.data), probes=probes, aside=aside, scores=scores)
