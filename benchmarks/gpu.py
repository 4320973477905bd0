"""Everything that is to be known of a GPU, row by row, within the minutes that it is there.

    make bench-gpu MINUTES=9       (python benchmarks/gpu.py [--minutes 9] [--only step] [--dry-run])

Each row is merged into results.json as soon as it is measured, so that a cut loses one row. One process works them off,
the weightiest first; where a row fails or takes too long, the row says so and a new process goes on with the next.
`--dry-run` does the same at toy size on a CPU, to see that every row runs; its figures are of no use and kept nowhere
unless `--results` names a file.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import RESULTS, SPAWN
from nanogpt import NanoGPT
from networks import igpt_module, image_gpt, tokens_of, with_start, x_transformer
from peaks import device_name
from plan import feature_operations, training_operations
from results import circumstances, save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from igpt.model import PRESETS, TransformerConfig, generate
from igpt.palette import Palette
from igpt.probing import fit_probes

Found = dict[str, Any]
LONGEST = 150.0  # seconds that a row may take before it is given up
BATCHES = (256, 128, 64, 32, 16, 8, 4)
TOY = TransformerConfig(2, 32, 2, n_positions=16, vocab_size=16)
LAYERS, IMAGES, CLASSES = 9, 4000, 10  # of the probes: MNIST's 5,000, eight layers
BACKENDS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
AT_64 = replace(PRESETS["S"], n_layers=8, d_model=256, n_positions=4096)


@dataclass(frozen=True)
class Place:
    """Where rows run, and whether at toy size."""

    device: str
    toy: bool

    def config(self, name: str) -> TransformerConfig:
        """A preset, or a network that takes no time."""
        return TOY if self.toy else PRESETS[name]

    def batch(self, batch: int) -> int:
        return min(batch, 2) if self.toy else batch

    def seconds(self, work: Callable[[], Any], rounds: int = 10) -> float:
        """Median seconds of some work, by the device's own clock where it has one; two rounds warm up."""
        rounds = 1 if self.toy else rounds
        times = [self.timed(work) for _ in range(rounds + (0 if self.toy else 2))]
        return statistics.median(times[-rounds:])

    def timed(self, work: Callable[[], Any]) -> float:
        if self.device != "cuda":
            started = time.perf_counter()
            work()
            return time.perf_counter() - started
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        work()
        after.record()
        torch.cuda.synchronize()
        return before.elapsed_time(after) / 1e3

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16)

    def peak_gib(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else None


def ceilings(place: Place) -> Found:
    """Operations a second of a large product in each type, and bytes a second of a copy, read and written."""
    side, found = 64 if place.toy else 8192, {}
    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, True),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(side, side, device=place.device, dtype=dtype) for _ in range(2))
        found[f"{name} operations/s"] = 2 * side**3 / place.seconds(lambda a=a, b=b: a @ b)
    source = torch.empty(1 << (16 if place.toy else 30), dtype=torch.uint8, device=place.device)
    target = torch.empty_like(source)
    found["bytes/s"] = 2 * len(source) / place.seconds(lambda: target.copy_(source))
    return found


def trained(place: Place, network: nn.Module, loss: Callable[[Tensor], Tensor], tokens: Tensor) -> Found:
    """A training step: bfloat16 by autocast, fused Adam."""
    adam = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        with place.autocast():
            value = loss(tokens)
        value.backward()
        adam.step()
        adam.zero_grad()

    seconds = place.seconds(step)
    return {"batch": len(tokens), "ms": 1e3 * seconds, "images/s": len(tokens) / seconds, "GiB": place.peak_gib()}


def igpt_step(place: Place, config: TransformerConfig, batch: int, whole: str | None = None) -> Found:
    """With each block compiled, or the whole stack in a mode of `torch.compile`."""
    module = igpt_module(config, place.device, compile=whole is None and not place.toy).train()
    module.configure_model()
    if whole is not None and not place.toy:
        stack = module.transformer
        stack.hidden_states = torch.compile(stack.hidden_states, mode=whole)  # type: ignore[method-assign]
    rng = torch.Generator()
    found = trained(place, module, lambda x: module.loss(x, rng), tokens_of(config, batch, place.device))
    return found | {"operations/s": training_operations(config) * found["images/s"]}


def step(name: str, place: Place) -> Found:
    """igpt's step at the largest batch that fits."""
    for batch in map(place.batch, BATCHES):
        with suppress(torch.OutOfMemoryError):
            return igpt_step(place, place.config(name), batch)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    raise MemoryError("not one batch fits")


def step_of_64(place: Place, whole: str | None = None, **changes: Any) -> Found:
    """igpt's step of S at batch 64, which the peers and `igpt fit` stand beside; or with something changed."""
    return igpt_step(place, replace(place.config("S"), **changes), place.batch(64), whole)


def attention_by(backend: SDPBackend, width: int, place: Place) -> Found:
    """Causal attention of heads this wide by one of PyTorch's kernels, forward and backward."""
    shape = (place.batch(32), 8, 16 if place.toy else 1024, width)
    types = {"device": place.device, "dtype": torch.bfloat16}
    q, k, v = (torch.randn(shape, **types, requires_grad=True) for _ in "qkv")
    upstream = torch.randn(shape, **types)

    def both() -> None:
        with sdpa_kernel(backend):
            F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(upstream)

    if backend not in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH) and place.device != "cuda":
        return {"left out": "a kernel of CUDA's"}
    return {"ms": 1e3 * place.seconds(both)}


def peer_step(make: Callable[[TransformerConfig, str], nn.Module], batch: int, compiled: bool, place: Place) -> Found:
    """A peer's step at S; its vocabulary has one token more, for the start."""
    config = place.config("S")
    network = make(config, place.device).train()
    run = torch.compile(network) if compiled and not place.toy else network

    def loss(tokens: Tensor) -> Tensor:
        out = run(with_start(tokens, config))
        logits = out if isinstance(out, Tensor) else out.logits
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())

    return trained(place, network, loss, tokens_of(config, place.batch(batch), place.device))


def nano_gpt(config: TransformerConfig, device: str) -> nn.Module:
    return NanoGPT(config).to(device)


def through_fit(place: Place) -> Found:
    """`igpt fit` itself at S and batch 64, data, logging and callbacks included."""
    from through_trainer import fit_work

    times: list[float] = []
    steps, rounds = (1, 1) if place.toy else (50, 4)
    asked = iter([True] * (rounds + 1) + [False])
    batch = place.batch(64)
    work = fit_work(place.config("S"), batch, steps, place.device, compiled=not place.toy)
    assert work.drive is not None
    work.drive(lambda: next(asked), lambda seconds, _: times.append(seconds / steps))
    seconds = statistics.median(times[1:])
    return {"batch": batch, "ms": 1e3 * seconds, "images/s": batch / seconds}


def sampled(images: int, dtype: torch.dtype, compiled: bool, place: Place) -> Found:
    """Whole images of S, or their first part where many are drawn, from the full distribution."""
    config = place.config("S")
    network = igpt_module(config, place.device).eval().transformer.to(dtype)
    count = place.batch(images)
    drawn = config.n_positions // 4
    position = torch.arange(config.n_positions, device=place.device)
    tokens = tokens_of(config, count, place.device)

    def draw() -> None:
        generate(network, tokens, known=position >= drawn, compile=compiled and not place.toy)

    return {"images": count, "tokens/s": count * drawn / place.seconds(draw, rounds=2)}


def image_gpt_sampled(place: Place) -> Found:
    """The same by `ImageGPT.generate`, 16 images."""
    config, count = place.config("S"), place.batch(16)
    network = image_gpt(config, place.device).eval()
    network.generation_config.eos_token_id = None
    start = torch.full((count, 1), config.vocab_size, device=place.device)
    drawn = config.n_positions // (4 if place.toy else 8)

    def draw() -> None:
        mask = torch.ones_like(start)
        network.generate(start, attention_mask=mask, max_length=drawn + 1, do_sample=True, top_k=0, pad_token_id=0)

    return {"images": count, "tokens/s": count * drawn / place.seconds(draw, rounds=1)}


def features(compiled: bool, bf16: bool, place: Place) -> Found:
    """Features of all layers of S."""
    config, batch = place.config("S"), place.batch(128)
    module = igpt_module(config, place.device, compile=compiled and not place.toy).eval()
    module.configure_model()
    tokens, layers = tokens_of(config, batch, place.device), list(range(config.n_layers + 1))

    @torch.inference_mode()
    def extract() -> None:
        with torch.autocast(place.device, torch.bfloat16, enabled=bf16):
            module.features(tokens, layers)

    rate = batch / place.seconds(extract, rounds=5)
    return {"batch": batch, "images/s": rate, "operations/s": feature_operations(config) * rate}


def encoding(place: Place) -> Found:
    """Images of 32x32 to tokens of 512 colours."""
    batch = place.batch(4096)
    palette = Palette(torch.rand(512, 3) * 2 - 1).to(place.device)
    images = torch.randint(256, (batch, 3, 32, 32), dtype=torch.uint8, device=place.device)
    palette.encode(images)  # the table is made
    return {"batch": batch, "images/s": batch / place.seconds(lambda: palette.encode(images))}


def lbfgs_probe(place: Place) -> Found:
    """L-BFGS probes of 9 layers of 4,000 images, five penalties."""
    images, width = (40, 8) if place.toy else (IMAGES, PRESETS["S"].d_model)
    inputs = torch.randn(LAYERS, images, width, device=place.device)
    labels = torch.arange(images, device=place.device) % CLASSES
    strengths = [0.1, 0.01, 0.001, 1e-4, 1e-5]
    return {"seconds": place.seconds(lambda: fit_probes(inputs, labels, strengths, CLASSES), rounds=1)}


def probed_by_all(place: Place) -> Found:
    """`igpt probe --method all` on a network of 8 layers and MNIST's 5,000 images, features included."""
    from igpt.cli import main

    data, side, colors = ("Digits", 8, 17) if place.toy else ("Mnist5k", 28, 8)
    shape = [2, 32] if place.toy else [LAYERS - 1, 256]
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        palette, config = Path(folder, "palette.npy"), Path(folder, "config.yaml")
        options = ["--data", data, "--data.resolution", side, "--colors", colors]
        transformer = dict(zip(("n_layers", "d_model", "n_heads"), (*shape, 4), strict=True))
        model = {"transformer": transformer, "palette": str(palette)}
        trainer = {"max_steps": 2, "limit_val_batches": 1, "accelerator": "gpu" if place.device == "cuda" else "cpu"}
        content = {
            "model": {"class_path": "igpt.modules.Autoregressive", "init_args": model},
            "data": {"class_path": f"igpt_datamodules.{data}", "init_args": {"resolution": side}},
            "trainer": trainer,
            "samples": {"num": 0, "completions": 0},
        }
        config.write_text(json.dumps(content))
        fit = ["fit", "--config", config, "--runs_dir", folder, "--name", "run"]
        probe = ["probe", "--ckpt", Path(folder, "run"), "--method", "all", *(["--epochs", 1] if place.toy else [])]
        for command in (["palette", *options, "--out", palette], fit, probe):
            started = time.perf_counter()
            if main([str(word) for word in command]):
                raise RuntimeError(f"igpt {command[0]} failed")
    return {"seconds": time.perf_counter() - started}


def patterned(attention: list[Any] | None, place: Place) -> Found:
    """A step at 64x64, 8 layers, width 256."""
    config = replace(TOY if place.toy else AT_64, attention=attention)
    return igpt_step(place, config, place.batch(8))


@dataclass(frozen=True)
class Row:
    """A measurement under its name."""

    name: str
    work: Callable[[Place], Found]


def bind(function: Callable[..., Found], *arguments: Any) -> Callable[[Place], Found]:
    return lambda place: function(*arguments, place)


ROWS = (
    Row("ceilings", ceilings),
    Row("step S, batch 64, igpt", step_of_64),
    Row("step S, batch 64, nanoGPT compiled", bind(peer_step, nano_gpt, 64, True)),
    Row("step S, batch 64, igpt fit", through_fit),
    Row("step S, batch 64, igpt, bfloat16 residuals", partial(step_of_64, residual="bfloat16")),
    *(Row(f"step {name}, largest batch, igpt", bind(step, name)) for name in ("S", "M", "L")),
    Row("sampling S, 16 images, bfloat16", bind(sampled, 16, torch.bfloat16, False)),
    Row("sampling S, 16 images, bfloat16, compiled", bind(sampled, 16, torch.bfloat16, True)),
    Row("sampling S, 16 images, ImageGPT.generate", image_gpt_sampled),
    Row("sampling S, 1 image, bfloat16", bind(sampled, 1, torch.bfloat16, False)),
    Row("sampling S, 64 images, bfloat16", bind(sampled, 64, torch.bfloat16, False)),
    Row("sampling S, 16 images, float32", bind(sampled, 16, torch.float32, False)),
    Row("features S, float32", bind(features, False, False)),
    Row("features S, bfloat16, compiled", bind(features, True, True)),
    Row("encoding, 512 colours", encoding),
    Row("probes, L-BFGS", lbfgs_probe),
    Row("igpt probe --method all, 9 layers", probed_by_all),
    *(
        Row(f"attention of heads of width {width}, {backend.name}", bind(attention_by, backend, width))
        for width in (64, 128)
        for backend in BACKENDS
    ),
    Row("step 64x64, dense", bind(patterned, None)),
    Row("step 64x64, rows 4", bind(patterned, [{"pattern": "rows", "k": 4}])),
    Row("step S, batch 64, igpt, whole stack compiled", partial(step_of_64, whole="default")),
    Row("step S, batch 64, igpt, whole stack, autotuned", partial(step_of_64, whole="max-autotune-no-cudagraphs")),
    Row("step S, batch 64, x-transformers compiled", bind(peer_step, x_transformer, 64, True)),
    Row("step S, batch 32, ImageGPT", bind(peer_step, image_gpt, 32, False)),
)


def serve(pipe: Any, place: Place) -> None:
    """The worker's life: a row's number comes, what was found or why there is nothing goes."""
    from igpt.system import keep_freed_memory

    keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    with suppress(EOFError):
        while True:
            row = ROWS[pipe.recv()]
            if place.device == "cuda":
                torch._dynamo.reset()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                pipe.send(row.work(place))
            except ModuleNotFoundError as error:
                pipe.send({"left out": f"{error.name} is not installed"})
            except Exception as error:
                pipe.send({"failed": f"{type(error).__name__}: {error}"[:300]})


class Worker:
    """A process that measures; it is replaced when it dies or takes too long."""

    def __init__(self, place: Place) -> None:
        self.pipe, there = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(there, place), daemon=True)
        self.process.start()
        there.close()

    def measure(self, number: int, seconds: float) -> Found:
        try:
            self.pipe.send(number)
            if self.pipe.poll(seconds):
                found: Found = self.pipe.recv()
                return found
            return {"failed": f"not done after {seconds:.0f} s"}
        except (EOFError, OSError):
            return {"failed": "the process died"}

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def measured(place: Place, chosen: list[int], minutes: float) -> Iterator[tuple[str, Found]]:
    """Name and figures of each row, until the time is over."""
    ends, worker = time.monotonic() + 60 * minutes, Worker(place)
    try:
        for number in chosen:
            left = ends - time.monotonic()
            if left < 5:
                yield ROWS[number].name, {"failed": "no time was left"}
                continue
            found = worker.measure(number, min(left, LONGEST))
            if "failed" in found:  # whatever it left behind goes with it
                worker.end()
                worker = Worker(place)
            yield ROWS[number].name, found
    finally:
        worker.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; --dry-run tries every row at toy size on the CPU")
    place = Place("cpu" if options.dry_run else "cuda", options.dry_run)
    chosen = [number for number, row in enumerate(ROWS) if row.name.startswith(options.only)]
    failed = 0
    with TemporaryDirectory() as folder:
        target = options.results or (Path(folder) / "results.json" if options.dry_run else RESULTS)
        for name, found in measured(place, chosen, options.minutes):
            failed += "failed" in found
            save(target, "gpu", {name: found | {"device": device_name(place.device)} | circumstances()})
            shown = [
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()
            ]
            print(f"{name}: {', '.join(shown)}", flush=True)
    if failed:
        raise SystemExit(f"{failed} of {len(chosen)} rows failed")


if __name__ == "__main__":
    main()
