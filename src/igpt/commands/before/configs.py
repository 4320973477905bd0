"""`igpt configs`: the configs that come with igpt."""

import re
import shutil
from pathlib import Path

from igpt.system import UserError, atomic_folder, shipped, shipped_configs


def configs(copy: str | None = None) -> None:
    """List the configs that come with igpt, or copy them.

    `--config` takes a name of the list from anywhere: `igpt fit --config digits_ar`.

    Args:
        copy: new folder to copy them to, to change them there.
    """
    if copy is not None:
        if Path(copy).exists():
            raise UserError(f"--copy {copy} exists already; name a new folder")
        with atomic_folder(Path(copy)) as folder:
            shutil.copytree(shipped("configs"), folder, dirs_exist_ok=True)
        print(f"wrote {copy}, {len(shipped_configs())} configs")
        return
    known = {name: path for name, path in shipped_configs().items() if not name.startswith("scale/")}
    width = max(map(len, known))
    for name, path in known.items():
        print(f"{name:{width}}  {about(path)}")


def about(config: Path) -> str:
    """One line about a config, from its header: the hardware, the time to expect, and what was measured."""
    header = " ".join(line[2:] for line in config.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    parts = re.split(r"\s*\b(Hardware|Expected|Measured): ", header)
    said = dict(zip(parts[1::2], parts[2::2], strict=False))
    return "; ".join(re.split(r"[.;:] |\.$", said[part])[0] for part in ("Hardware", "Expected") if part in said)
