"""`igpt tokenize` of 5,000 JPEG files in two processes beside one, and the memory that all of its processes hold.

    python benchmarks/bench_tokenize.py [--rounds 1] [--files 20000]

The whole command, libraries loaded and checksums written, on 500 files of 500x375 that stand there under many names.
Both sides must write the same bytes. Memory is that of the command and its workers together, shared pages counted
once, sampled while it runs; a fifth of the files shows whether it grows with their number. The more files, the less
counts what is done once (libraries, the table of colours): the ratio that is asked for is asked of 20,000.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_jpeg import write_files
from harness import Measured, arguments
from results import row, save_rows

from igpt.palette import Palette

FILES, FEW, COLORS = 500, 5, 512
SHARD_IMAGES = 1000  # the same shards' size for any number of files
EVERY = 0.2  # seconds between two looks at the memory
AT_LEAST, OF_FILES = 1.5, 20_000


def class_folders(folder: Path, count: int) -> Path:
    """`count` names of `FILES` different files, in two classes."""
    originals = folder / "originals"
    if not originals.exists():
        originals.mkdir()
        write_files(originals, FILES)
    root = folder / f"images{count}"
    for number in range(count):
        place = root / f"class{number % 2}" / f"{number:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(originals / f"{number % FILES:04d}.jpg")
    return root


def run(images: Path, palette: Path, out: Path, workers: int) -> tuple[float, int]:
    """Seconds of the command, and the most bytes that it and its workers held."""
    command = [sys.executable, "-m", "igpt", "tokenize", "--data", "igpt_datamodules.ImageFolder"]
    command += ["--data.init_args.root", str(images), "--palette", str(palette), "--out", str(out)]
    command += ["--workers", str(workers), "--shard_images", str(SHARD_IMAGES)]
    started, most = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, sum(map(proportional_bytes, [process.pid, *children(process.pid)])))
            time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"igpt tokenize failed with {process.returncode}")
    return time.perf_counter() - started, most


def children(pid: int) -> list[int]:
    """Processes that a process has started, of all its threads."""
    try:
        found = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return [int(word) for text in found for word in text.split()]


def proportional_bytes(pid: int) -> int:
    """Memory of a process, each shared page divided by those who share it; 0 once it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def same_bytes(one: Path, other: Path) -> None:
    """Stop unless two folders hold the same files.

    Raises:
        SystemExit: they do not.
    """
    a, b = ({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} for folder in (one, other))
    if a != b:
        raise SystemExit("one process and two wrote different shards")


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--files", type=int, default=5_000)
    options = parser.parse_args()
    two, one = Measured("2 processes", threads=1), Measured("1 process", threads=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        palette = folder / "palette.npy"
        Palette(torch.rand(COLORS, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1).save(palette)
        many, few = (class_folders(folder, count) for count in (options.files, options.files // FEW))
        _, memory_of_few = run(few, palette, folder / "few", 2)
        for number in range(options.rounds):
            for side, workers in ((two, 2), (one, 1)):
                seconds, memory = run(many, palette, folder / f"{workers}-{number}", workers)
                side.rates.append(options.files / seconds)
                side.peak_bytes = max(side.peak_bytes, memory)
                print(f"  {side.name} {seconds:.1f} s, {memory / 2**20:,.0f} MiB", flush=True)
            same_bytes(folder / f"2-{number}", folder / f"1-{number}")
    note = (
        f"the same bytes; {two.peak_bytes / 2**20:,.0f} MiB in all processes together with {options.files:,} files, "
        f"{memory_of_few / 2**20:,.0f} with {options.files // FEW:,}"
    )
    at_least = AT_LEAST if options.files >= OF_FILES else None
    work = f"tokenising {options.files:,} JPEG files"
    save_rows(options.results, [row(work, "images", two, one, at_least=at_least, note=note)])


if __name__ == "__main__":
    main()
