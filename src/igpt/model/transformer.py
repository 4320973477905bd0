"""The one transformer: GPT-2 pre-norm blocks over palette tokens, causal (AR) or not (BERT) by an argument.

Sources: Chen et al. 2020, section 2.2 for the block and 2.4 for layer features; the released code for the
norm, the activation, the missing biases and the initialisation.

Shapes: B images, T tokens an image, V palette colours, D width (d_model), H heads, L layers.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from igpt.model.attention import (
    LSH,
    HashedCache,
    LayerCache,
    Layout,
    Pattern,
    PatternCache,
    RelativeBias,
    Rope,
    attend,
    is_dense,
    lsh_attend,
    patterns_of,
    rotations,
)
from igpt.model.kernels import Linear, rms_norm
from igpt.model.order import with_slices
from igpt.system import UserError

NORM_EPS = 1e-5
# Fields that came later, None where they change nothing
ADDED = ("grid", "attention", "positions", "slices", "dropout", "conditions", "qk_norm", "residual")
ACTIVATION_SLOPE = 1.702  # of x * sigmoid(1.702 x), the approximation of GELU that the released models use


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a `PixelTransformer`.

    Args:
        n_layers: number of blocks, L.
        d_model: width, D.
        n_heads: attention heads; must divide `d_model`.
        n_positions: tokens an image, T = resolution squared.
        vocab_size: palette colours, V.
        norm: "rms" is the released models' gain-only norm; "layer" the layer norm that the paper writes.
        sos: whether there is a start-of-sequence vector, which the autoregressive objective needs and BERT does not.
        grid: rows and columns of the picture; None is a square of `n_positions` pixels.
        attention: patterns that say what each position sees, one for a layer, repeated over the layers, such as
            `[{pattern: rows, k: 4}, {pattern: strided}]`; in place of one a list of them, one for a head, repeated over
            the heads (docs/attention.md). None is dense, as the paper's.
        positions: "bias" learns a number for each offset of rows and columns and each head of a layer, "shared_bias"
            one for all layers, "rope" rotates queries and keys. None learns a vector for each position, as the paper.
        slices: equal parts of the sequence that have an embedding each, as a subscale order has; None has none.
        dropout: probability with which training drops each number of the embeddings' sum, and of what attention and MLP
            add to the residual stream, as in GPT-2; None is none, as in the paper (section 3.4).
        conditions: vectors that may be added to sos, as classes and transformations have one each; None has none.
        qk_norm: norm queries and keys of each head, with a gain for each of its channels, so that no score grows with
            the weights (Dehghani et al. 2023). None, as the paper's, does not.
        residual: "bfloat16" has bf16-mixed add up what the blocks give in bfloat16, half the memory traffic of float32;
            norms compute in float32 all the same. None is float32, as in every other precision.
    """

    n_layers: int = 24
    d_model: int = 512
    n_heads: int = 8
    n_positions: int = 1024
    vocab_size: int = 512
    norm: Literal["rms", "layer"] = "rms"
    sos: bool = True
    grid: tuple[int, int] | None = None
    attention: list[Any] | None = None
    positions: Literal["bias", "shared_bias", "rope"] | None = None
    slices: int | None = None
    dropout: float | None = None
    conditions: int | None = None
    qk_norm: bool | None = None
    residual: Literal["bfloat16"] | None = None

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "n_positions", "vocab_size"):
            if getattr(self, name) < 1:
                raise UserError(f"transformer.{name} is {getattr(self, name)}; it must be at least 1")
        if self.d_model % self.n_heads:
            raise UserError(
                f"transformer.n_heads {self.n_heads} does not divide transformer.d_model {self.d_model}; change one"
            )
        if self.norm not in ("rms", "layer"):
            raise UserError(f"transformer.norm is {self.norm!r}; choose rms or layer")
        if self.grid is not None:
            object.__setattr__(self, "grid", tuple(self.grid))
            if math.prod(self.grid) != self.n_positions:
                raise UserError(
                    f"transformer.grid {list(self.grid)} has {math.prod(self.grid)} pixels, "
                    f"but transformer.n_positions is {self.n_positions}; change one"
                )
        if self.positions not in (None, "bias", "shared_bias", "rope"):
            raise UserError(f"transformer.positions is {self.positions!r}; choose bias, shared_bias or rope")
        if self.positions == "rope" and self.d_model // self.n_heads % 4:
            raise UserError(
                f"transformer.positions rope needs heads whose width is a multiple of 4, not "
                f"{self.d_model // self.n_heads}; change transformer.n_heads"
            )
        if (self.attention is not None or self.positions) and math.prod(self.shape) != self.n_positions:
            raise UserError(
                f"transformer.n_positions {self.n_positions} is no square; patterns and offsets need transformer.grid"
            )
        for pattern in itertools.chain(*patterns_of(self.attention)):
            pattern.check(self.shape, self.sos)
            if isinstance(pattern, LSH) and self.positions:
                raise UserError(f"transformer.positions {self.positions} is not defined for lsh; leave it out")
            if isinstance(pattern, LSH) and self.qk_norm:
                raise UserError(
                    "transformer.qk_norm true is not defined for lsh, which norms keys itself; leave it out"
                )
        object.__setattr__(self, "qk_norm", self.qk_norm or None)  # false is what older versions do not write
        if self.slices is not None and (self.slices < 1 or self.n_positions % self.slices):
            raise UserError(f"transformer.slices {self.slices} must divide n_positions {self.n_positions}; change one")
        if self.residual not in (None, "bfloat16"):
            raise UserError(f"transformer.residual is {self.residual!r}; choose bfloat16, or null for float32")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError(f"transformer.dropout {self.dropout} must be at least 0 and below 1; None has none")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        side = math.isqrt(self.n_positions)
        return self.grid or (side, side)

    def heads(self, layer: int) -> list[Pattern]:
        """The pattern of each head of a layer."""
        layers = patterns_of(self.attention)
        own = layers[layer % len(layers)]
        return [own[head % len(own)] for head in range(self.n_heads)]

    @classmethod
    def of(cls, value: "TransformerConfig | dict[str, Any]") -> "TransformerConfig":
        """Accept a config or its plain dict, as checkpoints hold it; `preset` in a dict names one of `PRESETS`."""
        return value if isinstance(value, cls) else cls(**with_preset(value))  # type: ignore[arg-type]

    def check_weights(self, shape: Mapping[str, Any], source: str) -> None:
        """Raise a UserError where weights of another shape would not fit; positions can be interpolated."""
        for name in ("vocab_size", "d_model", "n_layers", "n_heads"):
            theirs, ours = shape.get(name, getattr(self, name)), getattr(self, name)
            if theirs != ours:
                colors = " (the colours of its palette)" if name == "vocab_size" else ""
                raise UserError(
                    f"{source} does not fit this model: its {name} is {theirs}{colors}, not {ours}; make them equal"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for checkpoints; what a version before did not know is in it only where it changes something."""
        known = asdict(self)
        return {name: value for name, value in known.items() if name not in ADDED or value is not None}


PRESETS = {
    "S": TransformerConfig(24, 512, 8),
    "M": TransformerConfig(36, 1024, 8),
    "L": TransformerConfig(48, 1536, 16),
    "XL": TransformerConfig(60, 3072, 16, n_positions=4096),  # the paper does not state the heads of XL
}


def with_preset(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config with `preset` replaced by the sizes that it stands for; those given beside it win.

    Raises:
        UserError: there is no such preset.
    """
    if "preset" not in fields:
        return fields
    name, given = fields["preset"], {key: value for key, value in fields.items() if key != "preset"}
    if str(name) not in PRESETS:
        raise UserError(f"transformer.preset is {name!r}; choose {', '.join(PRESETS)}")
    sizes = ("n_layers", "d_model", "n_heads", "n_positions", "vocab_size")
    return {size: getattr(PRESETS[name], size) for size in sizes} | given


class RMSNorm(nn.Module):
    """Gain only, no centring, no bias: `x * rsqrt(mean(x^2) + 1e-5) * g`, computed in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Norm over the last dimension."""
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return rms_norm(wide, self.weight.to(wide.dtype), NORM_EPS).to(x.dtype)


def make_norm(config: TransformerConfig) -> nn.Module:
    """The norm that the config names."""
    return RMSNorm(config.d_model) if config.norm == "rms" else nn.LayerNorm(config.d_model, eps=NORM_EPS)


def make_dropout(config: TransformerConfig) -> nn.Module:
    """The dropout that the config names: in training alone, and nothing at all where there is none."""
    return nn.Dropout(config.dropout) if config.dropout else nn.Identity()


class Attention(nn.Module):
    """Multi-head self-attention; q, k and v in one projection, no biases."""

    rotations: Tensor

    def __init__(self, config: TransformerConfig, layer: int, layout: Layout | None, rope: Rope | None) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.heads, self.layout, self.rope = config.heads(layer), layout, rope
        self.lsh = self.heads[0] if isinstance(self.heads[0], LSH) else None  # queries are its keys
        self.qkv = nn.Linear(config.d_model, (2 if self.lsh else 3) * config.d_model, bias=False)
        self.proj = nn.Linear(config.d_model, config.d_model, bias=False)
        if self.lsh:
            width, hashing = config.d_model // config.n_heads, (self.lsh.buckets, self.lsh.rounds)
            self.register_buffer("rotations", rotations(width, *hashing, layer, config.n_heads), persistent=False)
        self.bias = RelativeBias(config.n_heads, config.shape, buckets=False) if config.positions == "bias" else None
        width = config.d_model // config.n_heads
        self.q_norm, self.k_norm = (RMSNorm(width) if config.qk_norm else None for _ in "qk")

    def forward(
        self, x: Tensor, causal: bool, cache: Tensor | LayerCache | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """`(B, S, D)` to `(B, S, D)`; see `Block.forward`."""
        parts = self.qkv(x).split(x.shape[-1], dim=-1)  # each (B, S, D)
        q, *others = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)  # each (B, H, S, D / H)
        if self.lsh:
            if isinstance(cache, HashedCache):
                cache.fill(q, others[0])
            return self.out(lsh_attend(q, others[0], self.rotations, self.lsh.chunk))
        k, v = others
        q, k = self.normed(q, k)
        if self.rope is not None:
            end = cache.shape[3] if isinstance(cache, Tensor) else x.shape[1]
            q, k = (self.rope(part, slice(end - x.shape[1], end)) for part in (q, k))
        bias = bias if self.bias is None else self.bias()
        if isinstance(cache, PatternCache):
            cache.fill(k, v)
        elif isinstance(cache, Tensor):
            cache[0, :, :, -x.shape[1] :], cache[1, :, :, -x.shape[1] :] = k, v
            k, v = cache
            causal = causal and x.shape[1] > 1  # one position sees all before it
        if bias is None and is_dense(self.heads):
            mixed = attend(q, k, v, causal)
        else:
            assert self.layout is not None
            mixed = self.layout.attend(q, k, v, self.heads, causal, bias)
        return self.out(mixed)

    def normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys `(..., D / H)`, normed where the config says so: what is kept in a cache is normed."""
        return (q, k) if self.q_norm is None or self.k_norm is None else (self.q_norm(q), self.k_norm(k))

    def out(self, mixed: Tensor) -> Tensor:
        """Heads `(B, H, S, D / H)` side by side and projected, `(B, S, D)`."""
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out

    def own_cache(self, bias: Tensor | None, like: Tensor, batch: int) -> LayerCache:
        """Its KV cache where it is no dense one, in the type and on the device of `like`."""
        assert self.layout is not None
        width = self.proj.in_features // self.n_heads
        if self.lsh:
            return HashedCache(self.lsh, self.rotations, like, batch, self.n_heads, self.layout.length)
        return PatternCache(self.heads, self.layout, bias if self.bias is None else self.bias(), like, batch, width)


class MLP(nn.Module):
    """Two projections, 4 D wide, with the activation `x * sigmoid(1.702 x)`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.fc = Linear(config.d_model, 4 * config.d_model, scale=ACTIVATION_SLOPE)
        self.proj = Linear(4 * config.d_model, config.d_model, scale=1 / ACTIVATION_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, D)` to `(B, T, D)`."""
        out: Tensor = self.proj(F.silu(self.fc(x)))  # x * sigmoid(1.702 x) = silu(1.702 x) / 1.702
        return out


class Block(nn.Module):
    """`a = h + attn(norm(h)); h' = a + mlp(norm(a))`: every operation lies on a residual path (section 2.2)."""

    def __init__(
        self, config: TransformerConfig, layer: int = 0, layout: Layout | None = None, rope: Rope | None = None
    ) -> None:
        super().__init__()
        self.ln_1 = make_norm(config)
        self.attn = Attention(config, layer, layout, rope)
        self.ln_2 = make_norm(config)
        self.mlp = MLP(config)
        self.dropout = make_dropout(config)

    def forward(
        self, h: Tensor, causal: bool, cache: Tensor | LayerCache | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Hidden states `(B, S, D)` to `(B, S, D)`, in training, for features and in decoding.

        Args:
            causal: each position sees those before it and itself, else all see all.
            cache: in decoding, keys and values `(2, B, H, T, D / H)` of all positions so far. The S given ones are the
                last of them, and their keys and values are written there; S is T (the prefix) or 1. A `PatternCache`
                takes those of a prefix alone.
            bias: that all layers share, `(H, offsets)`.
        """
        h = h + self.dropout(self.attn(self.ln_1(h), causal, cache, bias))
        out: Tensor = h + self.dropout(self.mlp(self.ln_2(h)))
        return out


class PixelTransformer(nn.Module):
    """Palette tokens `(B, T)` in, logits `(B, T, V)` or layer features out.

    Causal: the input is `[sos, x_0 .. x_{T-2}]` and output i predicts `x_i`. Not causal: the input is `x` with the
    embeddings of masked positions set to zero, and output i predicts `x_i` at those.
    """

    def __init__(self, config: TransformerConfig, order: Tensor | None = None) -> None:
        """`order` is the raster index of each element of the sequence, int64 `(T,)`; None is raster order."""
        super().__init__()
        self.config = config
        self.activation_checkpointing = False  # training keeps only each block's input and runs it again backwards
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        learned = config.positions is None
        self.wpe = nn.Parameter(torch.empty(config.n_positions, config.d_model)) if learned else None
        self.sos = nn.Parameter(torch.empty(config.d_model)) if config.sos else None
        self.slices = nn.Parameter(torch.empty(config.slices, config.d_model)) if config.slices else None
        conditions = config.conditions
        self.conditions = nn.Parameter(torch.empty(conditions, config.d_model)) if conditions else None
        self.dropout = make_dropout(config)
        raster = torch.arange(config.n_positions) if order is None else order
        row, column = raster // config.shape[1], raster % config.shape[1]
        layout = Layout(row, column, config.shape)
        rope = Rope(config.d_model // config.n_heads, row, column) if config.positions == "rope" else None
        shared = config.positions == "shared_bias"
        self.bias = RelativeBias(config.n_heads, config.shape, buckets=True) if shared else None
        self.blocks = nn.ModuleList(Block(config, layer, layout, rope) for layer in range(config.n_layers))
        self.ln_f = make_norm(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """The published initialisation; the zero head makes the first loss exactly log(V)."""
        d_model, n_layers = self.config.d_model, self.config.n_layers
        nn.init.normal_(self.wte.weight, std=0.02)
        if self.wpe is not None:
            nn.init.normal_(self.wpe, std=0.01)
        if self.sos is not None:
            nn.init.normal_(self.sos, std=0.02)
        if self.slices is not None:
            nn.init.normal_(self.slices, std=0.01)
        if self.conditions is not None:
            nn.init.zeros_(self.conditions)  # no condition says anything yet, and no random number is drawn
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.attn.qkv.weight, std=1 / math.sqrt(d_model))
            nn.init.normal_(block.attn.proj.weight, std=1 / math.sqrt(d_model * n_layers))
            nn.init.normal_(block.mlp.fc.weight, std=0.02)
            nn.init.normal_(block.mlp.proj.weight, std=0.02)
        nn.init.zeros_(self.head.weight)

    def positions(self) -> Tensor | None:
        """What is added to the token at each position, `(T, D)`: its embedding, and that of its slice."""
        if self.wpe is None and self.slices is None:
            return None
        own = self.wte.weight.new_zeros(self.config.n_positions, 1) if self.wpe is None else self.wpe
        return with_slices(own, self.slices)

    def start(self, batch: int, conditions: Tensor | None = None) -> Tensor:
        """What stands before the first pixel, `(B, 1, D)`: sos, with the vectors of its conditions added.

        Args:
            batch: images, B.
            conditions: rows of `self.conditions` for each image, int64 `(B, C)`; -1 adds nothing, and None to no image.
        """
        assert self.sos is not None
        if conditions is None:
            return self.sos.expand(batch, 1, -1)
        if self.conditions is None:
            raise ValueError("conditions need a transformer that has vectors for some")
        vectors = F.embedding(conditions.clamp(min=0), self.conditions) * (conditions >= 0).unsqueeze(-1)  # (B, C, D)
        return (self.sos + vectors.sum(1)).unsqueeze(1)

    def embed(
        self, tokens: Tensor, causal: bool, masked: Tensor | None = None, conditions: Tensor | None = None
    ) -> Tensor:
        """Input of the first block, `(B, T, D)`.

        Args:
            tokens: int64 `(B, T)`.
            causal: put sos in front and drop the last pixel.
            masked: bool `(B, T)`, only when not causal; where True the token's embedding is zero, its position stays.
            conditions: as of `start`, only when causal.
        """
        content: Tensor = self.wte(tokens)
        if causal:
            if self.sos is None or masked is not None:
                raise ValueError("the causal forward needs a transformer with sos, and takes no mask")
            start = self.start(len(tokens), conditions)
            content = torch.cat([start.to(content.dtype), content[:, :-1]], dim=1)
        elif masked is not None:
            content = content.masked_fill(masked.unsqueeze(-1), 0.0)
        positions = self.positions()
        summed: Tensor = self.dropout(content if positions is None else content + positions[: tokens.shape[1]])
        return summed.to(residual_type(self.config, summed))

    def shared_bias(self) -> Tensor | None:
        """The bias by offsets that all layers share, `(H, offsets)`."""
        return None if self.bias is None else self.bias()

    def forward(
        self, tokens: Tensor, *, causal: bool, masked: Tensor | None = None, conditions: Tensor | None = None
    ) -> Tensor:
        """Logits `(B, T, V)`, output i being the distribution of `x_i`."""
        hidden = self.hidden_states(tokens, causal=causal, masked=masked, conditions=conditions)
        logits: Tensor = self.head(hidden)
        return logits

    def hidden_states(
        self, tokens: Tensor, *, causal: bool, masked: Tensor | None = None, conditions: Tensor | None = None
    ) -> Tensor:
        """Last hidden states `(B, T, D)`, behind the final norm: the head projects them, and fine-tuning pools them."""
        h, bias = self.embed(tokens, causal, masked, conditions), self.shared_bias()
        for block in self.blocks:
            again = self.activation_checkpointing and h.requires_grad
            more = causal, None, bias
            h = checkpoint(block, h, *more, use_reentrant=False) if again else block(h, *more)
        normed: Tensor = self.ln_f(h)
        return normed

    def features(
        self,
        tokens: Tensor,
        layers: list[int],
        *,
        causal: bool,
        masked: Tensor | None = None,
        normed: bool = True,
        pool: Tensor | None = None,
        pooled: bool = True,
    ) -> Tensor:
        """Features of each asked layer, `(len(layers), B, D)`, in one pass (section 2.4).

        Layer l < L is the input of block l behind its first norm; layer L is the final norm's output. Blocks above
        the highest asked layer are not run, and no hidden state is kept.

        Args:
            tokens: int64 `(B, T)`.
            layers: which of 0..L, in the order of the result.
            normed: False takes the same states before their norm.
            pool: averaging weights `(G, T)`; features are then `(len(layers), B, G * D)`. None is the mean over T.
            pooled: False gives the states of every token instead, `(len(layers), B, T, D)`.
        """
        check_layers(layers, self.config.n_layers)
        found: dict[int, Tensor] = {}
        h, bias = self.embed(tokens, causal, masked), self.shared_bias()
        for layer in range(max(layers) + 1):
            if layer in layers:
                norm = self.ln_f if layer == self.config.n_layers else self.blocks[layer].ln_1
                states = norm(h) if normed else h  # type: ignore[operator]
                with torch.autocast(states.device.type, enabled=False):  # a mean is no place to save digits
                    if pooled:
                        states = states.float() if states.dtype == torch.bfloat16 else states
                        states = states.mean(1) if pool is None else (pool.to(states.dtype) @ states).flatten(1)
                found[layer] = states
            if layer < max(layers):
                h = self.blocks[layer](h, causal, None, bias)
        return torch.stack([found[layer] for layer in layers])


def residual_type(config: TransformerConfig, h: Tensor) -> torch.dtype:
    """The type in which blocks add up, given their first input: the config's under autocast to it, else the input's."""
    device = h.device.type
    narrow = config.residual == "bfloat16" and torch.is_autocast_enabled(device)
    return torch.bfloat16 if narrow and torch.get_autocast_dtype(device) == torch.bfloat16 else h.dtype


def check_layers(layers: list[int], n_layers: int) -> None:
    """Raise a UserError unless every layer lies in 0..n_layers."""
    wrong = [layer for layer in layers if not 0 <= layer <= n_layers]
    if wrong or not layers:
        raise UserError(f"--layers {','.join(map(str, wrong))}: this model has layers 0 to {n_layers}")


def parameter_count(config: TransformerConfig) -> int:
    """Exact number of parameters, counted on the meta device: no memory is used."""
    with torch.device("meta"):
        return sum(p.numel() for p in PixelTransformer(config).parameters())


def forward_operations(config: TransformerConfig, causal: bool = True) -> int:
    """Of one image through the whole network, head included: a multiplication and an addition are two.

    Norms, activations and embeddings are left out. The backward pass takes twice as many.
    """
    tokens, depth, width = config.n_positions, config.n_layers, config.d_model
    projections = 2 * 12 * depth * width**2 * tokens
    attention = 4 * depth * tokens**2 * width // (2 if causal else 1)
    return projections + attention + 2 * tokens * width * config.vocab_size
