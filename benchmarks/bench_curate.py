"""`igpt curate` over 32x32 pictures with planted copies: memory of the process, seconds of each stage, what was found.

    python benchmarks/bench_curate.py [--images 1000000] [--folder DIR] [--workers 0]

The whole command, in so many processes of one thread each. Pictures are random, as powerful at each of four scales, as
photos are, many of little contrast. One in ten is a copy of another, at half the size and back, as JPEG of quality 50,
or cropped by 5 %; one in a hundred is a copy of one of ten pictures, so that whole crowds of candidates are one
picture. They are read from one file, at no cost of decoding. Memory is the most that all processes held together, by
a look every few seconds (all of the first, mapped files included, and of the others what they do not share), and the
system's high-water mark of the largest. A stage ends when its last block is written. A million pictures take 4.5 GB of
disk.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from igpt.data import NO_LABEL, ImageDataModule, LabelledImages

SIDE, BYTES = 32, 3 * 32 * 32
BLOCK, MEMES, TESTS = 4096, 10, 1000
CROWD = 0.01  # share of the pictures that are copies of the ten
REPORT = "import resource, sys\nfrom igpt.cli import main\ncode = main(sys.argv[1:])\n"
REPORT += "most = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
REPORT += "print('peak', max(most) * 1024)\nsys.exit(code)"


class FileImages(LabelledImages):
    """Pictures of one file of bytes, read one by one, so that none of it counts as memory."""

    def __init__(self, file: str, first: int, count: int) -> None:
        self.file, self.first, self.handle = file, first, -1
        self.labels = torch.full((count,), NO_LABEL)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.handle < 0:
            self.handle = os.open(self.file, os.O_RDONLY)
        data = os.pread(self.handle, BYTES, (self.first + index) * BYTES)
        return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(3, SIDE, SIDE), NO_LABEL


class Pictures(ImageDataModule):
    """The pictures of a file; the last thousand are for testing."""

    def __init__(self, file: str = "", resolution: int = SIDE, batch_size: int = 64, num_workers: int = 0) -> None:
        super().__init__(resolution, batch_size, num_workers)
        self.file = file

    def load(self) -> Mapping[str, LabelledImages]:
        count = os.path.getsize(self.file) // BYTES - TESTS
        return {"train": FileImages(self.file, 0, count), "test": FileImages(self.file, count, TESTS)}


def fresh(count: int, rng: torch.Generator) -> Tensor:
    """Random pictures uint8 `(count, 3, 32, 32)`: grey and colours at several scales, contrast from little to much."""
    total = torch.zeros(count, 3, SIDE, SIDE)
    for cells in (2, 4, 8, 16):
        grey = torch.randn(count, 1, cells, cells, generator=rng)
        colour = torch.randn(count, 3, cells, cells, generator=rng)
        total += F.interpolate((grey + 0.3 * colour) * 0.5, (SIDE, SIDE), mode="bilinear")
    contrast = 10 ** (1.0 + 0.8 * torch.rand(count, 1, 1, 1, generator=rng))
    mean = 60 + 130 * torch.rand(count, 1, 1, 1, generator=rng)
    return (mean + contrast * total).clamp(0, 255).round().byte()


def changed(picture: Tensor, kind: int, rng: np.random.Generator) -> Tensor:
    """A copy as the web makes them: 0 half the size and back, 1 JPEG, 2 cropped by 5 %."""
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    if kind == 0:
        image = image.resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC).resize((SIDE, SIDE))
    elif kind == 1:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=50)
        image = Image.open(io.BytesIO(file.getvalue()))
    else:
        cut = 0.05 * SIDE
        left, top = (cut * rng.random(2)).tolist()
        box = (left, top, left + SIDE - cut, top + SIDE - cut)
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def write_pictures(target: Path, count: int, copies: float) -> np.ndarray:
    """Write the pictures; of each the number of what it is a copy of, or its own, `(count,)`."""
    rng, torch_rng = np.random.default_rng(0), torch.Generator().manual_seed(0)
    memes = fresh(MEMES, torch_rng)
    origin = np.arange(count)
    with open(target, "wb") as file:
        for start in range(0, count, BLOCK):
            pictures = fresh(min(BLOCK, count - start), torch_rng)
            size = len(pictures)
            of = rng.integers(0, max(1, size // 2), size)  # copies are of the first half, and stand in the second
            draw = rng.random(size)
            for place in np.flatnonzero((draw < CROWD) | (np.arange(size) >= size // 2) & (draw < CROWD + 2 * copies)):
                crowd = draw[place] < CROWD
                meme, kind = int(rng.integers(MEMES)), int(rng.integers(3))
                pictures[place] = changed(memes[meme] if crowd else pictures[of[place]], kind, rng)
                origin[start + place] = -1 - meme if crowd else origin[start + of[place]]
            file.write(pictures.numpy().tobytes())
    return origin


def held(process: int, first: bool = True) -> int:
    """Bytes that a process and all that it started hold now; of the others without what they share."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended
        return 0
    kinds = ("Rss:",) if first else ("Private_Clean:", "Private_Dirty:")
    own = sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(kinds))
    return own + sum(held(int(child), False) for child in children)


def curate(folder: Path, candidates: int, workers: int) -> tuple[int, int, float]:
    """Run the command; the most bytes that all its processes held together, and that one did, and their CPU seconds."""
    command = [sys.executable, "-c", REPORT, "curate", "--data", "bench_curate.Pictures", "--workers", str(workers)]
    command += ["--data.file", str(folder / "web.bin"), "--reference", "bench_curate.Pictures"]
    command += ["--reference.file", str(folder / "reference.bin"), "--out", str(folder / "kept.csv")]
    command += ["--candidates", str(candidates)]
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": here, "IGPT_ALLOW_IMPORTS": "bench_curate", "OMP_NUM_THREADS": "1"}
    together = 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            began = time.perf_counter()
            together = max(together, held(process.pid))
            time.sleep(max(0.2, 50 * (time.perf_counter() - began)))  # a look takes the system's time
        assert process.stdout is not None
        said = process.stdout.read()
    print(said, end="")
    if process.returncode:
        raise SystemExit(f"igpt curate failed with {process.returncode}")
    taken = resource.getrusage(resource.RUSAGE_CHILDREN)
    return together, int(said.rsplit(maxsplit=1)[1]), taken.ru_utime + taken.ru_stime


def seconds(work: Path) -> dict[str, float]:
    """Of each stage, from the first block of all to the last of its own, less the stages before it."""
    ends: dict[str, float] = {}
    for file in work.glob("*.npy"):
        stage = file.stem.split("-")[0]
        ends[stage] = max(ends.get(stage, 0.0), file.stat().st_mtime)
    ordered = sorted(ends.items(), key=lambda item: item[1])
    before = [min(file.stat().st_mtime for file in work.glob("*.npy")), *(end for _, end in ordered)]
    return {stage: end - before[number] for number, (stage, end) in enumerate(ordered)}


def scores(manifest: Path, origin: np.ndarray) -> tuple[float, float]:
    """Share of the planted copies that were dropped as duplicates, and of what was dropped so that is a copy."""
    order = {"train": [], "val": [], "test": []}
    with open(manifest, encoding="utf-8") as file:
        next(file)
        for line in file:
            _, split, _, _, reason, *_ = line.split(",")
            order[split].append(reason.startswith("duplicate"))
    from igpt.data import SplitOptions, stratified_split

    count = len(origin) - TESTS
    kept, off = stratified_split([NO_LABEL] * count, SplitOptions().val_share, 0)
    rows = np.array([*kept, *off, *range(count, len(origin))])
    found = np.array([*order["train"], *order["val"], *order["test"]])
    of = origin[rows]
    groups, sizes = np.unique(of, return_counts=True)
    planted = len(of) - len(groups)  # one of each group stays
    copies = sizes[np.searchsorted(groups, of)] > 1
    return min(1.0, float((found & copies).sum() / planted)), float((found & copies).sum() / max(1, found.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--copies", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="to keep pictures and blocks in; a temporary one if left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        origin = write_pictures(folder / "web.bin", options.images, options.copies)
        (folder / "reference.bin").write_bytes(fresh(5000 + TESTS, torch.Generator().manual_seed(1)).numpy().tobytes())
        began = time.perf_counter()
        together, largest, taken = curate(folder, options.candidates, options.workers)
        whole = time.perf_counter() - began
        recall, precision = scores(folder / "kept.csv", origin)
        stages = seconds(folder / "kept.work")
    found = {"images": options.images, "together_gib": round(together / 2**30, 3)}
    found |= {
        "largest_gib": round(largest / 2**30, 3),
        "whole_seconds": round(whole),
        "cpu_seconds": round(taken),
        "seconds": stages,
    }
    print(json.dumps(found | {"recall": round(recall, 4), "precision": round(precision, 4)}, indent=1))


if __name__ == "__main__":
    main()
