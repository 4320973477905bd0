"""Drawing pixels: one after another with a key/value cache (AR; paper, figure 1), or many at once (BERT)."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from igpt.model.cache import Decoder, most_at_once
from igpt.model.transformer import PixelTransformer
from igpt.system import UserError, free_memory, with_progress

LEAST_TEMPERATURE = 1e-6  # float32 logits divided by much less are infinite, and their softmax NaN


@dataclass(frozen=True)
class SamplingOptions:
    """How pixels are drawn from the network's distributions.

    Args:
        temperature: logits are divided by it.
        top_k: keep the k most likely colours; 0 keeps all.
        top_p: keep the fewest colours whose probability reaches p; 1.0 keeps all. The likeliest is always kept.
        seed: of a generator of its own, so that sampling disturbs no other randomness.
        steps: passes of BERT (`infill`); the autoregressive model has none.
        compile: run each step of the autoregressive model as one compiled graph: half a minute to begin with, then up
            to twice as fast on a CPU; on CUDA fewer, larger kernels. For BERT it changes nothing.
        progress: on a terminal, count the positions, or BERT's passes, that are done.
        labels: class of each image, or one for all, for a network that is told classes; None tells it none.
        guidance: g of classifier-free guidance (Ho & Salimans 2022): logits without the class plus g times what the
            class adds to them. 1 is the distribution given the class, 0 that without it, above 1 more typical of it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    steps: int = 64
    compile: bool = False
    progress: bool = False
    labels: tuple[int, ...] | None = None
    guidance: float = 1.0

    def counted(self, rounds: range, what: str) -> Iterable[int]:
        """The same numbers, counted on a terminal where asked for."""
        return with_progress(rounds, len(rounds), what, quiet=True) if self.progress else rounds

    def check(self) -> None:
        """Raise a UserError for options that make no distribution, or for no pass at all."""
        if not self.temperature >= LEAST_TEMPERATURE:
            raise UserError(
                f"--temperature {self.temperature} must be at least {LEAST_TEMPERATURE}; "
                "use --top_k 1 for the likeliest colour"
            )
        if self.top_k < 0:
            raise UserError(f"--top_k {self.top_k} must be 0 (all colours) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top_p {self.top_p} must be above 0 and at most 1")
        if self.steps < 1:
            raise UserError(f"--steps {self.steps} must be at least 1")
        if not 0 <= self.guidance < math.inf:
            raise UserError(f"--guidance {self.guidance} must be a number of at least 0")
        if self.guidance != 1 and self.labels is None:
            raise UserError(f"--guidance {self.guidance} is towards a class; name one with --class")

    def told(self, count: int, device: torch.device) -> list[Tensor | None]:
        """The conditions of each pass through the network: int64 `(count, 1)` with the class, None without."""
        labels = None
        if self.labels is not None:
            labels = torch.tensor(self.labels, device=device).expand(count)[:, None]
        return [None] if self.guidance == 0 else [labels] if self.guidance == 1 else [labels, None]


def filter_logits(logits: Tensor, options: SamplingOptions) -> Tensor:
    """Logits `(B, V)` divided by the temperature, all but those of `top_k` and `top_p` set to -inf."""
    logits = logits.float() / options.temperature
    if 0 < options.top_k < logits.shape[-1]:
        kth = logits.topk(options.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if options.top_p < 1.0:
        ordered, order = logits.sort(descending=True)
        probs = ordered.softmax(-1)
        beyond = probs.cumsum(-1) - probs >= options.top_p  # mass before this colour already reaches p
        logits = ordered.masked_fill(beyond, float("-inf")).gather(1, order.argsort(1))
    return logits


def guided(logits: list[Tensor], guidance: float) -> Tensor:
    """Logits `(B, V)` from those of each pass, the one without the class being the last."""
    if len(logits) == 1:
        return logits[0]
    given, without = (each.float() for each in logits)
    return without + guidance * (given - without)


def draw(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Sample a colour from each distribution, `(B, V)` to int64 `(B, 1)`.

    The same numbers as `torch.multinomial`, which synchronises a GPU to validate its input.
    """
    times = torch.empty_like(probs).exponential_(generator=generator)
    return (probs / times).argmax(-1, keepdim=True)  # the first of V events that happen at rates `probs`


def generate(
    model: PixelTransformer,
    prefix: Tensor,
    *,
    known: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    compile: bool = False,
) -> Tensor:
    """`sample` with `SamplingOptions` as keyword arguments."""
    return sample(model, prefix, known, SamplingOptions(temperature, top_k, top_p, seed, compile=compile))


@torch.inference_mode()
def sample(
    model: PixelTransformer,
    prefix: Tensor,
    known: Tensor | None = None,
    options: SamplingOptions = SamplingOptions(),
    allowed: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """Sample what is not known of each image pixel by pixel, in the order of the sequence (paper, figure 1).

    Every pixel is drawn given those **before** it alone; known pixels that come later have no say in it. What is known
    from the beginning goes through the network at once, the rest one pixel at a time. Images whose caches do not fit
    into half of the free memory are drawn in parts, one after another, and then differ from those of one part.

    Args:
        prefix: int64 `(B, P)` with `0 <= P <= T`, on the model's device: how the images begin; P = 0 draws whole ones.
        known: bool `(B, T)` or `(T,)`: which pixels of `prefix`, now whole images `(B, T)`, are kept. If left out,
            those of the prefix.
        allowed: which colours may stand at a position, bool `(B, V)`, given the images so far `(B, T)` and the
            position; if left out, all.

    Returns:
        Tokens int64 `(B, T)`, the known ones unchanged.

    Raises:
        UserError: the options make no distribution.
    """
    options.check()
    generator = torch.Generator(prefix.device).manual_seed(options.seed)
    length, count = model.config.n_positions, len(prefix)
    known = torch.arange(length, device=prefix.device) < prefix.shape[1] if known is None else known
    known, told = known.expand(count, length), options.told(count, prefix.device)
    most = most_at_once(model, len(told), free_memory(prefix.device.type))
    if count <= most:
        return sample_part(model, prefix, known, told, options, generator, allowed)
    parts = [slice(first, first + most) for first in range(0, count, most)]
    conditions = [[None if each is None else each[part] for each in told] for part in parts]
    return torch.cat(
        [
            sample_part(model, prefix[part], known[part], of_part, options, generator, allowed)
            for part, of_part in zip(parts, conditions, strict=True)
        ]
    )


def sample_part(
    model: PixelTransformer,
    prefix: Tensor,
    known: Tensor,
    told: list[Tensor | None],
    options: SamplingOptions,
    generator: torch.Generator,
    allowed: Callable[[Tensor, int], Tensor] | None,
) -> Tensor:
    """`sample` of images that memory holds at once: `known (B, T)`, and the conditions of each pass in `told`."""
    length = model.config.n_positions
    tokens = torch.empty(len(prefix), length, dtype=torch.int64, device=prefix.device)
    tokens[:, : prefix.shape[1]] = prefix
    to_draw = (~known).any(0).nonzero().flatten().tolist()
    first, end = (to_draw[0], to_draw[-1] + 1) if to_draw else (length, length)
    drawing = set(to_draw)
    decoders, fresh = [Decoder(model, len(tokens), options.compile, each) for each in told], tokens[:, :first]
    for position in options.counted(range(first, end), "positions drawn"):
        logits = guided([decoder.next_logits(fresh) for decoder in decoders], options.guidance)
        fresh = tokens[:, position : position + 1]
        if position in drawing:
            if allowed is not None:
                logits = logits.masked_fill(~allowed(tokens, position), float("-inf"))
            drawn = draw(filter_logits(logits, options).softmax(-1), generator)
            fresh = torch.where(known[:, position : position + 1], fresh, drawn)
            tokens[:, position] = fresh[:, 0]
    return tokens


@torch.inference_mode()
def infill(
    model: PixelTransformer, tokens: Tensor, unknown: Tensor, options: SamplingOptions = SamplingOptions()
) -> Tensor:
    """Sample the unknown pixels with BERT, which sees all known ones on every side, in a few passes.

    The paper draws nothing with BERT; this is the iterative unmasking of Chang et al. 2022 (MaskGIT). All unknown
    pixels are masked. Each pass draws a colour for every masked one, keeps those that the network gave the highest
    probability, as many as `unmasking_schedule` says, and masks the others again. Unlikely colours are thus redrawn, so
    that pictures are more typical than the network's own distribution.

    The pixels of one pass do not see each other, so more passes give more coherent pictures, and one pixel a pass the
    most coherent; each pass costs a forward of the whole image. On halves of digits an AR model finds what is drawn in
    1, 8 and 32 passes worth 2.8, 1.7 and 1.4 nats a pixel (test images 1.3). BERT was trained with 15 % masked, so the
    first passes, with more than that, need most care: of the 64 passes for half of a 32x32 image the first quarter
    fixes 39 of 512 pixels; up to 64 unknown pixels are drawn one at a time.

    Args:
        tokens: int64 `(B, T)`; those at unknown positions have no say.
        unknown: bool `(B, T)`.
        options: as many `steps` as there are unknown pixels, or more, is one pixel a pass.

    Returns:
        Tokens int64 `(B, T)`, the known ones unchanged.

    Raises:
        UserError: the options make no distribution.
    """
    options.check()
    generator = torch.Generator(tokens.device).manual_seed(options.seed)
    schedules = [unmasking_schedule(count, options.steps) for count in unknown.sum(1).tolist()]
    masked = unknown
    for step in options.counted(range(max(map(len, schedules), default=0)), "passes: pictures drawn"):
        logits = model.head(model.hidden_states(tokens, causal=False, masked=masked)[masked])
        drawn = torch.multinomial(filter_logits(logits, options).softmax(-1), 1, generator=generator)
        probability = logits.float().softmax(-1).gather(1, drawn)  # the network's own, whatever the settings
        confidence = torch.full(tokens.shape, -1.0, device=tokens.device).masked_scatter(masked, probability)
        counts = torch.tensor([schedule[step] if step < len(schedule) else 0 for schedule in schedules])
        kept = most_confident(confidence, counts)
        tokens = torch.where(kept, tokens.masked_scatter(masked, drawn), tokens)
        masked = masked & ~kept
    return tokens.clone()


def unmasking_schedule(count: int, steps: int) -> list[int]:
    """How many of `count` masked pixels each pass fixes: few at first, by a cosine; at least one, `count` in all."""
    steps = min(steps, count)
    left, schedule = count, []
    for step in range(1, steps + 1):
        wanted = round(count * math.cos(math.pi / 2 * step / steps))
        still = max(min(wanted, left - 1), steps - step)  # every later pass has one to fix, too
        schedule.append(left - still)
        left = still
    return schedule


def most_confident(confidence: Tensor, counts: Tensor) -> Tensor:
    """Bool `(B, T)`: the `counts (B,)` highest of each row of `confidence (B, T)`; on a tie the earlier."""
    ranks = confidence.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return ranks < counts.to(ranks.device)[:, None]
