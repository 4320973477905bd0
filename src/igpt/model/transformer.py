"""The one transformer: GPT-2 pre-norm blocks over palette tokens, causal (AR) or not (BERT) by an argument.

Sources: Chen et al. 2020, section 2.2 for the block and 2.4 for layer features; the released code for the
norm, the activation, the missing biases and the initialisation.

Shapes: B images, T tokens an image, V palette colours, D width (d_model), H heads, L layers.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from igpt.model.attention import attend
from igpt.model.kernels import Linear, rms_norm
from igpt.system import UserError

NORM_EPS = 1e-5
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
    """

    n_layers: int = 24
    d_model: int = 512
    n_heads: int = 8
    n_positions: int = 1024
    vocab_size: int = 512
    norm: Literal["rms", "layer"] = "rms"
    sos: bool = True

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
        """Plain data, for checkpoints."""
        return asdict(self)


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


class Attention(nn.Module):
    """Multi-head self-attention; q, k and v in one projection, no biases."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, causal: bool, cache: Tensor | None = None) -> Tensor:
        """`(B, S, D)` to `(B, S, D)`; see `Block.forward`."""
        parts = self.qkv(x).chunk(3, dim=-1)  # each (B, S, D)
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)  # each (B, H, S, D / H)
        if cache is not None:
            cache[0, :, :, -x.shape[1] :], cache[1, :, :, -x.shape[1] :] = k, v
            k, v = cache
            causal = causal and x.shape[1] > 1  # one position sees all before it
        mixed: Tensor = self.proj(attend(q, k, v, causal).transpose(1, 2).flatten(2))  # (B, H, S, D / H) -> (B, S, D)
        return mixed


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

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.ln_1 = make_norm(config)
        self.attn = Attention(config)
        self.ln_2 = make_norm(config)
        self.mlp = MLP(config)

    def forward(self, h: Tensor, causal: bool, cache: Tensor | None = None) -> Tensor:
        """Hidden states `(B, S, D)` to `(B, S, D)`, in training, for features and in decoding.

        Args:
            causal: each position sees those before it and itself, else all see all.
            cache: in decoding, keys and values `(2, B, H, T, D / H)` of all positions so far. The S given ones are the
                last of them, and their keys and values are written there; S is T (the prefix) or 1.
        """
        h = h + self.attn(self.ln_1(h), causal, cache)
        out: Tensor = h + self.mlp(self.ln_2(h))
        return out


class PixelTransformer(nn.Module):
    """Palette tokens `(B, T)` in, logits `(B, T, V)` or layer features out.

    Causal: the input is `[sos, x_0 .. x_{T-2}]` and output i predicts `x_i`. Not causal: the input is `x` with the
    embeddings of masked positions set to zero, and output i predicts `x_i` at those.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False  # training keeps only each block's input and runs it again backwards
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        self.wpe = nn.Parameter(torch.empty(config.n_positions, config.d_model))
        self.sos = nn.Parameter(torch.empty(config.d_model)) if config.sos else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_f = make_norm(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """The published initialisation; the zero head makes the first loss exactly log(V)."""
        d_model, n_layers = self.config.d_model, self.config.n_layers
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe, std=0.01)
        if self.sos is not None:
            nn.init.normal_(self.sos, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.attn.qkv.weight, std=1 / math.sqrt(d_model))
            nn.init.normal_(block.attn.proj.weight, std=1 / math.sqrt(d_model * n_layers))
            nn.init.normal_(block.mlp.fc.weight, std=0.02)
            nn.init.normal_(block.mlp.proj.weight, std=0.02)
        nn.init.zeros_(self.head.weight)

    def embed(self, tokens: Tensor, causal: bool, masked: Tensor | None = None) -> Tensor:
        """Input of the first block, `(B, T, D)`.

        Args:
            tokens: int64 `(B, T)`.
            causal: put sos in front and drop the last pixel.
            masked: bool `(B, T)`, only when not causal; where True the token's embedding is zero, its position stays.
        """
        content: Tensor = self.wte(tokens)
        if causal:
            if self.sos is None or masked is not None:
                raise ValueError("the causal forward needs a transformer with sos, and takes no mask")
            start = self.sos.to(content.dtype).expand(len(tokens), 1, -1)
            content = torch.cat([start, content[:, :-1]], dim=1)
        elif masked is not None:
            content = content.masked_fill(masked.unsqueeze(-1), 0.0)
        return content + self.wpe[: tokens.shape[1]]

    def forward(self, tokens: Tensor, *, causal: bool, masked: Tensor | None = None) -> Tensor:
        """Logits `(B, T, V)`, output i being the distribution of `x_i`."""
        logits: Tensor = self.head(self.hidden_states(tokens, causal=causal, masked=masked))
        return logits

    def hidden_states(self, tokens: Tensor, *, causal: bool, masked: Tensor | None = None) -> Tensor:
        """Last hidden states `(B, T, D)`, behind the final norm: the head projects them, and fine-tuning pools them."""
        h = self.embed(tokens, causal, masked)
        for block in self.blocks:
            again = self.activation_checkpointing and h.requires_grad
            h = checkpoint(block, h, causal, use_reentrant=False) if again else block(h, causal)
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
    ) -> Tensor:
        """Features of each asked layer, `(len(layers), B, D)`, in one pass (section 2.4).

        Layer l < L is the input of block l behind its first norm; layer L is the final norm's output. Blocks above
        the highest asked layer are not run, and no hidden state is kept.

        Args:
            tokens: int64 `(B, T)`.
            layers: which of 0..L, in the order of the result.
            normed: False takes the same states before their norm.
            pool: averaging weights `(G, T)`; features are then `(len(layers), B, G * D)`. None is the mean over T.
        """
        check_layers(layers, self.config.n_layers)
        pooled: dict[int, Tensor] = {}
        h = self.embed(tokens, causal, masked)
        for layer in range(max(layers) + 1):
            if layer in layers:
                norm = self.ln_f if layer == self.config.n_layers else self.blocks[layer].ln_1
                states = norm(h) if normed else h  # type: ignore[operator]
                with torch.autocast(states.device.type, enabled=False):  # a mean is no place to save digits
                    pooled[layer] = states.mean(1) if pool is None else (pool.to(states.dtype) @ states).flatten(1)
            if layer < max(layers):
                h = self.blocks[layer](h, causal)
        return torch.stack([pooled[layer] for layer in layers])


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
