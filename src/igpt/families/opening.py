"""From what `igpt probe --source` is given to a source: a plug-in's name, one that comes along, or a checkpoint."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from igpt.checkpoints import CHECKPOINT_KEY, checksum_of, find_checkpoint
from igpt.families.contract import FeatureSource, check_spec, checked_layers
from igpt.families.pixels import PixelSource
from igpt.families.probed import LoadedSource, ProbedSource
from igpt.modules import Loaded, PixelModule, as_loaded, read_module, step_of
from igpt.system import SOURCES, UserError, registered

SHIPPED = {  # imported when they are asked for
    "pixels": "igpt.families.pixels:RawPixels",
    "torchvision": "igpt.families.pretrained:TorchVisionSource",
    "timm": "igpt.families.timm:TimmSource",
    "huggingface": "igpt.families.huggingface:HuggingFaceSource",
}


def known_sources() -> list[str]:
    """Names of the sources that come along or are installed."""
    return sorted({*SHIPPED, *(point.name for point in registered(SOURCES))})


def open_source(name: str, **options: Any) -> FeatureSource:
    """The source of a name, or of a checkpoint: a file, a run's folder or its name.

    Args:
        name: `NAME`, or `NAME:WHICH` for a source that offers several, such as torchvision:resnet18.
        options: of the source, such as `weights`.

    Raises:
        UserError: there is none, it cannot be imported or built, or it breaks the contract.
    """
    return source_of(open_subject(name, **options).module)


def source_of(module: PixelModule | ProbedSource) -> FeatureSource:
    """What is probed, as a source."""
    return PixelSource(module) if isinstance(module, PixelModule) else module.source


def open_subject(name: str, **options: Any) -> Loaded | LoadedSource:
    """What `igpt probe` probes: see `open_source`."""
    start, _, which = name.partition(":")
    if start in known_sources():
        return LoadedSource(ProbedSource(built(start, which, options)), Path(name))
    path = find_checkpoint(name)
    if not os.path.lexists(path):
        known = ", ".join(known_sources())
        raise UserError(f"--source {name}: there is no source of that name ({known}), and no checkpoint; give one")
    if options:
        raise UserError(f"--source {name}: a checkpoint takes no --{next(iter(options))}; leave it out")
    return open_checkpoint(path)


def open_checkpoint(path: str | Path) -> Loaded | LoadedSource:
    """A checkpoint of any family: see `read_module`; a UserError for one that has no layers to probe."""
    module, content = read_module(path)
    if isinstance(module, PixelModule):
        return as_loaded(module, path, content)
    if not isinstance(module, FeatureSource):
        raise UserError(f"checkpoint {path} is a {type(module).__name__}, which has no layers to probe; use another")
    data = content[CHECKPOINT_KEY].get("data")
    return LoadedSource(ProbedSource(module), Path(path), checksum_of(Path(path)), step_of(content), data)


def built(start: str, which: str, options: dict[str, Any]) -> FeatureSource:
    """Build a source, and look whether it keeps the contract as far as that shows without images."""
    kind, package = found(start)
    try:
        source: Any = kind(*([which] if which else []), **options)
    except UserError:
        raise
    except TypeError as error:
        given = ", ".join([*([repr(which)] if which else []), *(f"--{name}" for name in options)]) or "nothing"
        raise UserError(f"--source {start} of {package} cannot be built from {given}: {error}") from error
    except Exception as error:
        raise UserError(
            f"--source {start} of {package} fails: {in_words(error)}; mend or remove the package"
        ) from error
    if not isinstance(source, FeatureSource):
        raise UserError(f"--source {start} of {package} is {type(source).__name__}, not an igpt.families.FeatureSource")
    checked_layers(source)
    check_spec(source)
    return source.eval()


def found(start: str) -> tuple[Callable[..., Any], str]:
    """The class or function that makes a source, and its package; an installed one goes before one that comes along."""
    point = next((one for one in registered(SOURCES) if one.name == start), None)
    if point is None:
        module, _, name = SHIPPED[start].partition(":")
        return getattr(import_module(module), name), "igpt"
    package = point.dist.name if point.dist else "an unknown package"
    try:
        kind: Any = point.load()
    except (Exception, SystemExit) as error:
        raise UserError(f"--source {start} of {package} cannot be imported ({in_words(error)}); mend it") from error
    if not callable(kind):
        raise UserError(f"--source {start} of {package} is {type(kind).__name__}, neither a class nor a function")
    return kind, package


def in_words(error: BaseException) -> str:
    """An error's type and text, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
