"""Digests of what the commands compute, to be compared before and after a change that must change nothing.

    python -m tests.same_bits before.json      # writes the digests
    ... change the code ...
    python -m tests.same_bits before.json      # compares: exit code 1 and the names of those that differ

Both on one machine: other processors round differently.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import REPO

FILES = {"ar": "digits_ar", "bert": "digits/bert", "joint": "digits/joint"}
CONFIGS = {"ar": "digits_ar", "bert": "digits_bert", "joint": "digits_joint"}
SHORT = [
    "--trainer.max_steps", "20", "--trainer.log_every_n_steps", "1", "--trainer.val_check_interval", "20",
    "--trainer.precision", "32-true", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
    "--trainer.callbacks", "[]",
]  # fmt: skip
EXACT = ["--precision", "32-true", "--accelerator", "cpu"]


def igpt(folder: Path, *arguments: object) -> None:
    """The command, in a folder that has the configs and a palette."""
    command = [sys.executable, "-m", "igpt", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def digest(*parts: bytes) -> str:
    """Of all of them in turn."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def losses(run: Path) -> bytes:
    """All that was logged, by name and step, but for speeds, learning rates and gradient norms (later versions')."""
    events = EventAccumulator(str(run))
    events.Reload()
    left_out = ("per_second", "lr-", "gradient_norm")
    names = sorted(tag for tag in events.Tags()["scalars"] if not any(part in tag for part in left_out))
    found = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}
    assert len(found["train/loss"]) == 20
    return json.dumps(found).encode()


def arrays(folder: Path) -> Iterator[bytes]:
    """The .npy files of a folder."""
    for path in sorted(folder.rglob("*.npy")):
        yield path.name.encode() + np.load(path).tobytes()


def digests(folder: Path) -> dict[str, str]:
    """Of palettes, losses, features, pictures and shards, made in a folder."""
    (folder / "configs").symlink_to(REPO / "configs")
    found = {}
    for data, colors in (("Digits", 17), ("SamplePhotos", 32)):
        igpt(folder, "palette", "--data", data, "--colors", colors, "--out", f"palettes/{data.lower()}.npy")
        found[f"palette of {data}"] = digest((folder / "palettes" / f"{data.lower()}.npy").read_bytes())
    for name, config in CONFIGS.items():
        igpt(folder, "fit", "--config", f"configs/{FILES[name]}.yaml", *SHORT)
        found[f"losses of {name}"] = digest(losses(folder / "runs" / config))
    for name in ("ar", "bert"):
        checkpoint = f"runs/{CONFIGS[name]}/checkpoints/last.ckpt"
        igpt(folder, "probe", "--ckpt", checkpoint, "--method", "knn", *EXACT, "--out", f"{name}_probe")
        found[f"features of {name}"] = digest(*arrays(folder / f"{name}_probe"))
        for kind, options in {"likeliest": ["--top_k", 1], "drawn": ["--seed", 3]}.items():
            igpt(folder, "sample", "--ckpt", checkpoint, "--indices", 0, 1, *options, *EXACT, "--out", f"{name}.png")
            found[f"{kind} pixels of {name}"] = digest((folder / f"{name}.npy").read_bytes())
    igpt(folder, "tokenize", "--data", "Digits", "--palette", "palettes/digits.npy", "--shard_images", 500,
         "--workers", 1, "--out", "tokens")  # fmt: skip
    found["shards"] = digest(*arrays(folder / "tokens"))
    return found


def main(path: Path) -> int:
    """Write the digests, or compare with those that are there."""
    with tempfile.TemporaryDirectory() as folder:
        found = digests(Path(folder))
    if not path.exists():
        path.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    before = json.loads(path.read_text())
    changed = [name for name in sorted({*found, *before}) if found.get(name) != before.get(name)]
    print(f"changed: {', '.join(changed)}" if changed else f"all {len(found)} are the same")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
