"""Finding data modules that other packages provide, through entry points of the group `igpt.datamodules`."""

import warnings
from importlib.metadata import EntryPoint, entry_points

GROUP = "igpt.datamodules"


def registered() -> list[EntryPoint]:
    """All entry points of the group, the built-in ones among them: they have no privileged path."""
    return sorted(entry_points(group=GROUP), key=lambda point: point.name)


def load_plugins() -> None:
    """Import every plug-in, so that its classes can be named in configs and, by short name, on the command line.

    One that fails to import is named in a warning; the others work on.
    """
    for point in registered():
        try:
            point.load()
        except (Exception, SystemExit) as error:
            package = point.dist.name if point.dist else "unknown package"
            problem = f"{type(error).__name__}: {error}".replace("\n", " ")
            warnings.warn(
                f"data module {point.name} of {package} cannot be imported ({problem}); it is left out", stacklevel=2
            )


def packages() -> set[str]:
    """Top-level packages that registered plug-ins come from: what a checkpoint may name as its data."""
    return {point.module.partition(".")[0] for point in registered()}
