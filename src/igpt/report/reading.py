"""From a run's folder to records. What cannot be read is left out and said in one line; all the rest stands."""

import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from torch import Tensor

from igpt.checkpoints import CHECKPOINT_KEY, LAST, META, is_run, read_checkpoint, read_meta, read_probe_record
from igpt.checkpoints import step_checkpoints as saved_steps
from igpt.data import BadImageError, decode_rgb
from igpt.report.schema import Data, Evaluation, Events, Picture, Point, Probe, Run, Score, load
from igpt.system import UserError, complain, in_one_line, same_file

Say = Callable[[str], object]  # takes a line about something that is left out
T = TypeVar("T")
UNKNOWN = "unknown data"
FAMILIES = "igpt.families"  # where the classes of other families are
IMPORTED = "checkpoints/last.yaml"  # the config that `igpt import` writes beside its checkpoint
NOT_TRAINED = ("palette.colors", "pixel_order", "coarse_of")  # tensors of a checkpoint that are no parameters
NO_DATA = {"batch_size", "num_workers", "device_gib", "augment", "download", "verify"}  # of a run, not of its data
NO_DATA |= {"labels_per_class", "subset_seed", "fold_validation", "split"}
MOVED = re.compile(r"\.\d+$")  # what a folder's name ends in that a later probe moved aside
SHOWN = ("samples", "completions")
REDRAW = "draw it again or remove it"
NO_FOLDER = "there is no such folder; give the folder of a run, such as runs/digits_ar"


def warn(line: str) -> None:
    """Say on standard error that something is left out."""
    complain(f"igpt: warning: left out: {in_one_line(line)}")


def attempt(read: Callable[[Path], T], path: Path, remedy: str, say: Say) -> T | None:
    """What a reader returns; None where there is no file, and where it is not whole: then a line about it is said."""
    try:
        return read(path) if os.path.lexists(path) else None
    except UserError as error:
        say(str(error))
    except OSError as error:
        say(f"{path} cannot be read ({error.strerror}); {remedy}")
    except (ValueError, TypeError, LookupError, AttributeError, BadImageError, yaml.YAMLError) as error:
        reason = in_one_line(str(error).partition("\n")[0])
        say(f"{path} is not as igpt writes it ({reason}); {remedy}")
    return None


def data_of(record: dict[str, Any]) -> Data:
    """What a record's `data` and `identity` say."""
    spec, identity = record.get("data") or {}, record.get("identity") or {}
    if "class_path" not in spec:
        return Data(UNKNOWN)
    given = spec.get("init_args") or {}
    either = {**given, **(given.get("split") or {})}  # before there was `split`, its options stood beside the others
    arguments = {k: v for k, v in {**given, "val_share": either.get("val_share")}.items() if k not in NO_DATA}
    told = {name: value for name, value in identity.items() if name != "root"}
    known = {
        "name": str(identity.get("name") or spec["class_path"]).rpartition(".")[2],
        "identity": json.dumps(told, sort_keys=True, default=str) if told else "",
        "arguments": json.dumps(arguments, sort_keys=True, default=str),
        **{name: identity.get(name) for name in ("root", "fingerprint", "classes")},
    }
    data: Data = load(Data, {**either, **known})
    return data


def natural(path: Path) -> list[str | int]:
    """A key for sorting, 2 before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


def read_probes(folder: Path, say: Say, aside: bool = False) -> list[Probe]:
    """Every probe.json of a run, the one in the folder `probe` itself last; or those that later probes moved aside."""
    found = [*folder.glob("probe.*/probe.json"), *folder.glob("probe/*/probe.json")]
    files = sorted((path for path in found if bool(MOVED.search(path.parent.name)) == aside), key=natural)
    if not aside:
        files = [path for path in files if path.parent.parent != folder] + [*folder.glob("probe/probe.json")]

    def read(path: Path) -> Probe:
        record = read_probe_record(path)
        probe: Probe = load(Probe, record | {"data": data_of(record), "folder": path.parent})
        return probe

    remedy = "make it again with 'igpt probe', or move it away"
    return [probe for path in files if (probe := attempt(read, path, remedy, say))]


def read_scores(path: Path, say: Say) -> list[Score]:
    """The entries of scores.json; none where there is no such file, or it cannot be read."""

    def read(path: Path) -> list[Score]:
        entries: list[dict[str, Any]] = load(list[dict[str, Any]], json.loads(path.read_text(encoding="utf-8")))
        for entry in entries:
            entry["data"] = data_of(entry) if entry.get("data") else None
            entry["checkpoint"] = Path(entry.get("checkpoint", "")).name
        return [load(Score, entry) for entry in entries]

    return attempt(read, path, "make it again with 'igpt test', or move it away", say) or []


def read_evaluation(path: Path, say: Say) -> Evaluation | None:
    """What `igpt evaluate` wrote; None where there is no such file, or it cannot be read."""

    def read(path: Path) -> Evaluation:
        found: Evaluation = load(Evaluation, json.loads(path.read_text(encoding="utf-8")))
        return found

    return attempt(read, path, "make it again with 'igpt evaluate', or move it away", say)


def read_events(folder: Path, say: Say) -> Events:
    """Scalars and pictures of all events files in `folder`, the later file winning where two know the same step.

    Lightning writes a scalar after step n with the number n - 1; here n stands. `validate` and `test` write files of
    their own, at step 0, which are no part of a curve, and pictures in them none of training.
    """
    curves: dict[str, dict[int, float]] = {}
    events = Events()
    for path in sorted(folder.glob("events.out.tfevents.*"), key=natural):  # names tell when they were begun
        scalars, pictures = read_file(path, say)
        training = any(tag.startswith("train/") for tag in scalars)
        for tag, points in scalars.items():
            if tag.startswith("test/"):
                events.tested[tag] = points[-1].value
            elif training or any(point.step > 0 for point in points):
                curves.setdefault(tag, {}).update({point.step + 1: point.value for point in points})
        events.pictures.update(pictures if training else {})
    return replace(events, curves={tag: [Point(*p) for p in sorted(points.items())] for tag, points in curves.items()})


def read_file(path: Path, say: Say) -> tuple[dict[str, list[Point]], dict[str, Picture]]:
    """Scalars of one file by tag, as they were written, and the newest picture of each tag that a page shows."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.compat.tensorflow_stub.errors import DataLossError, OutOfRangeError  # type: ignore[import-untyped]
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (  # type: ignore[import-untyped]
        PyRecordReader_New as RecordReader,
    )

    scalars: dict[str, list[Point]] = {}
    pictures: dict[str, Picture] = {}
    records = RecordReader(str(path))
    try:
        while True:
            records.GetNext()
            event = Event.FromString(records.record())
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    scalars.setdefault(value.tag, []).append(Point(event.step, value.simple_value))
                elif value.HasField("image") and value.tag in SHOWN:
                    origin = f"drawn while training, at step {event.step:,}"
                    pictures[value.tag] = Picture(value.image.encoded_image_string, origin)
    except OutOfRangeError:  # the end
        pass
    except (DataLossError, DecodeError):
        say(f"{path}: what comes behind a record that is damaged, or not whole, as it may be while a run trains")
    finally:
        records.file_handle.close()
    return scalars, pictures


def read_commands(folder: Path, say: Say) -> list[str]:
    """The command lines in commands.txt; none where there is no such file."""
    text = attempt(lambda path: path.read_text("utf-8", "replace"), folder / "commands.txt", "move it away", say) or ""
    return [line.strip() for line in text.split("\n") if line.strip()]


def read_picture(path: Path) -> Picture:
    """A picture that `igpt sample` drew beside the run, once a decoder has read it."""
    picture = Picture(path.read_bytes(), path.name)
    decode_rgb(io.BytesIO(picture.content))
    return picture


def read_config(path: Path) -> dict[str, Any]:
    """What config.yaml says."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: content[name] for name in ("model", "data")} | content


def read_header(path: Path) -> dict[str, Any]:
    """What one checkpoint says, a file or the folder of a sharded run, whose tensors are not looked at."""
    content = read_meta(path) if (path / META).is_file() else read_checkpoint(path)
    state = {name: value for name, value in content.get("state_dict", {}).items() if isinstance(value, Tensor)}
    header: dict[str, Any] = content[CHECKPOINT_KEY]
    return header | {
        "steps": content.get("global_step"),
        "parameters": sum(
            value.numel() for name, value in state.items() if not (name.endswith(NOT_TRAINED) or "palette." in name)
        )
        or None,
        "palette": next((value for name, value in state.items() if name.endswith("palette.colors")), None),
    }


def read_saved(folder: Path, say: Say) -> dict[str, Any]:
    """What the newest checkpoint that can be read says; nothing where there is none."""
    last, steps = folder / LAST, saved_steps(folder).values()
    files = [*([last] if os.path.lexists(last) else []), *(path for path in steps if not same_file(path, last))]
    found = (attempt(read_header, path, "use a file that igpt wrote", say) for path in files)
    return next((saved for saved in found if saved), {})


def describe(path: Path, config: dict[str, Any], saved: dict[str, Any], say: Say) -> Run:
    """The run as its config and its checkpoint's header tell, the header first.

    Raises:
        UserError: neither names a model that igpt knows.
    """
    own = (config.get("model") or {}).get("init_args") or {}
    spec = saved.get("model") or config.get("model") or {}
    objective, args = objective_of(spec), spec.get("init_args") or {}
    if objective is None:
        raise UserError(f"run {path}: it is of no class of igpt; give the folder of a run of igpt fit")
    start = own.get("pretrained") or own.get("start_from")
    start = start or ((own.get("generative") or {}).get("init_args") or {}).get("start_from")
    held = args.get("generative") if objective == "Joint" else spec
    if held is None and start:
        held = (attempt(read_header, Path(start), "use a file that igpt wrote", say) or {}).get("model")
    inner = (held or {}).get("init_args") or {}
    core, began = objective_of(held or {}) or "unknown", saved.get("began") or (start and {"checkpoint": start}) or None
    trainer, seed, data = config.get("trainer") or {}, config.get("seed_everything"), data_of(saved)
    known = {
        "name": os.path.basename(os.path.abspath(path)),
        "folder": str(path),
        "objective": objective,
        "core": core,
        "data": data_of(config) if data.name == UNKNOWN else data,
        "began": began,
        "network": inner.get("transformer"),
        "order": inner.get("order"),
        "learning_rate": args.get("learning_rate"),
        **{name: saved.get(name) for name in ("parameters", "palette", "steps")},
        "seed": None if seed is True else seed,
        "max_steps": trainer.get("max_steps"),
        "precision": trainer.get("precision") and str(trainer["precision"]),
        "config": IMPORTED if not config and (path / IMPORTED).exists() else None,
    }
    if objective == "Joint":
        told = "began" in saved or (own.get("generative") and not config.get("ckpt_path"))  # a resumed run's does not
        known["origin"] = core if began else "scratch" if told else None
        known["weight"] = args.get("generative_weight", 1.0)
        known["evaluation"] = (args.get("evaluation", "mode"), args.get("eval_masks", 5))
        known["checkpoint"] = "checkpoints/best.ckpt" if (path / "checkpoints" / "best.ckpt").exists() else None
    run: Run = load(Run, known)
    return run


def objective_of(spec: dict[str, Any]) -> str | None:
    """AR, AR coarse to fine, AR of bytes, BERT, Joint or another family's, of a model as class path and arguments."""
    known = {"Autoregressive": "AR", "CoarseToFine": "AR coarse to fine", "ByteAutoregressive": "AR of bytes"}
    known |= {"BERT": "BERT", "Joint": "Joint"}
    module, _, name = spec.get("class_path", "").rpartition(".")
    return name if module.startswith(FAMILIES) else known.get(name)


def gather(folder: str, say: Say = warn) -> Run:
    """Everything that the files of one run folder say; all is optional but config.yaml or a checkpoint.

    Raises:
        UserError: there is no such folder, or no file in it tells what kind of run it is.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"run {folder}: {NO_FOLDER}")
    file, remedy = path / "config.yaml", "put back the file that igpt fit wrote"
    config, saved = attempt(read_config, file, remedy, say) or {}, read_saved(path / "checkpoints", say)
    if not config and not saved:
        why = "holds neither config.yaml nor checkpoints that can be read; give the folder of a run of igpt fit"
        raise UserError(f"run {folder} {why}")
    run = attempt(lambda _: describe(path, config, saved, say), file, remedy, say) or describe(path, {}, saved, say)
    scores, events = read_scores(path / "scores.json", say), read_events(path, say)
    if (path / "scores.json").exists():  # it alone tells on which data the tests were whose figures events hold
        events = replace(events, tested={})
    on = [score.data for score in sorted(scores, key=lambda score: score.verb == "test") if score.data]
    probes = {probe.step: probe for probe in read_probes(path, say)}
    return replace(
        run,
        folder=folder,
        data=Data(on[-1].name, on[-1].resolution) if run.data.name == UNKNOWN and on else run.data,
        events=events,
        probes=[probes[step] for step in sorted(probes)],
        aside=read_probes(path, say, aside=True),
        scores=scores,
        judged=read_evaluation(path / "evaluate" / "evaluate.json", say),
        pictures={name: drawn for name in SHOWN if (drawn := attempt(read_picture, path / f"{name}.png", REDRAW, say))},
        commands=read_commands(path, say),
        steps_saved=sorted(saved_steps(path / "checkpoints")),
    )


def runs_in(folder: Path) -> list[Path]:
    """The runs that lie in a folder, by name, 2 before 10."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in inside if path.is_dir() and is_run(path)), key=natural)


def gather_all(folders: list[str], say: Say = warn) -> list[Run]:
    """The runs in the order given, of a folder of runs all; one named twice counts once.

    Runs of equal names get their folders as names.

    Raises:
        UserError: no run is named, there is no such folder, or nothing is left.
    """
    if not folders:
        raise UserError("no run is named; give folders of runs, such as: igpt report runs/digits_ar --out report.html")
    named = [one for given in map(Path, folders) for one in (not is_run(given) and runs_in(given)) or [given]]
    if gone := [folder for folder in named if not os.path.lexists(folder)]:
        raise UserError(f"run {gone[0]}: {NO_FOLDER}")
    places: dict[str, Path] = {}
    for folder in named:
        places.setdefault(os.path.realpath(folder), folder)
    if len(places) == 1:
        return told_apart([gather(str(named[0]), say)])
    found = [attempt(lambda path: gather(str(path), say), folder, "", say) for folder in places.values()]
    if not (runs := [run for run in found if run]):
        raise UserError(f"none of these {len(places)} folders holds a run; give folders such as runs/digits_ar")
    names = Counter(run.name for run in runs)
    return told_apart([replace(run, name=run.folder) if names[run.name] > 1 else run for run in runs])


def told_apart(runs: list[Run]) -> list[Run]:
    """The runs with labels of data that are equal only where all that is known of the data is.

    Data without an identity, of an older version, get that of others of the run of the same arguments, else these.
    """
    of_runs = [[run.data, *run.evaluated, *(probe.data for probe in run.aside)] for run in runs]
    found: dict[str, list[str]] = {}
    for every in of_runs:
        told = {(data.plain, data.arguments): data for data in reversed(every) if data.identity}
        for data in every:
            if not data.identity:
                same = told.get((data.plain, data.arguments), replace(data, identity=data.arguments))
                data.identity, data.root, data.fingerprint, data.classes = (
                    same.identity, same.root, same.fingerprint, same.classes)  # fmt: skip
            found.setdefault(data.plain, []).append(data.identity)
    for data in (data for every in of_runs for data in every):
        several = list(dict.fromkeys(found[data.plain]))
        data.apart = f"#{several.index(data.identity) + 1}" if len(several) > 1 else ""
    return runs
