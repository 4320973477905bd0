"""Which classes and functions a config may name (docs/security.md); asked before anything is imported."""

import re

from jsonargparse import set_parsing_settings

from igpt.system import ALLOW, ALLOWED, allowed_imports, packages

# Of Lightning and torch, the parts whose classes options ask for. A name counts by where it is defined as well, so that
# nothing else can be reached through them: torch.nn.modules.module.torch.load is torch.serialization.load.
LIBRARIES = {
    *(f"lightning.pytorch.{part}" for part in ("accelerators", "callbacks", "loggers", "profilers", "strategies")),
    *("lightning.Callback", "lightning.pytorch.plugins", "lightning.fabric.plugins", "lightning.fabric.strategies"),
    *(f"lightning.fabric.{part}" for part in ("accelerators", "loggers")),
    *("torch.nn", "torch.optim", "torch.profiler", "torch.dtype", "torch.float32", "torch.float16", "torch.bfloat16"),
    *("torch.distributed.fsdp", "torch.distributed.algorithms"),
}
REFUSED = "is of no package whose classes a config may name"
_granted: set[str] = set()


def restrict_imports() -> None:
    """Have parsers import classes of igpt, Lightning, torch and plug-ins, and what the user allows."""
    allowed = {"igpt"} | LIBRARIES | packages() | allowed_imports()
    set_parsing_settings(
        import_path_denylist=["*", *sorted(_granted - allowed)],  # of an earlier command of this process
        import_path_allowlist=sorted(allowed),
        instantiate_subclass_spec_in_any=False,
    )
    _granted.update(allowed)


def refused_import(message: str) -> str | None:
    """What to say where a parser's message, or that of a parser within it, is about a name that may not be imported."""
    found = re.search(rf"Importing '([^']+)' is not allowed|(\S+) {REFUSED}", message)
    if found is None:
        return None
    name = found[1] or found[2]
    module = name.rpartition(".")[0]
    return f"{name} {REFUSED}, so it was not imported; if you trust it, add {ALLOW} {module} (or set {ALLOWED})"
