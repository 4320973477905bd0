"""OpenAI's formulas in plain NumPy, straight from the names and shapes of the released TensorFlow checkpoints.

Sums over named indices (`einsum`), as the released code writes them: b images, s and t positions, h heads, e a head's
features, f the width's features, g those of the MLP, v colours, c classes.
"""

import numpy as np


def norm(x, gain):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5) * gain


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(x, w, scope, causal):
    q, k, v = (np.einsum("bsf,hef->bhse", x, w[f"{scope}/{name}_proj"]) for name in "qkv")
    scores = np.einsum("bhse,bhte->bhst", q, k) / np.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(x.shape[1], dtype=bool), scores, -1e10)
    return np.einsum("bhst,bhte,hef->bsf", softmax(scores), v, w[f"{scope}/c_proj"])


def mlp(x, w, scope):
    hidden = np.einsum("bsf,fg->bsg", x, w[f"{scope}/c_fc/w"])
    return np.einsum("bsg,gf->bsf", hidden / (1 + np.exp(-1.702 * hidden)), w[f"{scope}/c_proj/w"])


def final(weights, tokens, mask):
    """Output of the last norm `(b, s, f)`, and the weights in float64; AR where there is a `sos`."""
    w = {name: np.asarray(values, np.float64) for name, values in weights.items()}
    causal = "model/sos" in w
    x = w["model/wte"][tokens]
    if causal:
        x = np.concatenate([np.broadcast_to(w["model/sos"], x[:, :1].shape), x[:, :-1]], axis=1)
    else:
        x = x * (1 - mask[:, :, None])
    x = x + w["model/wpe"]
    for layer in range(sum(name.endswith("ln_1/g") for name in w)):
        scope = f"model/h{layer}"
        x = x + attention(norm(x, w[f"{scope}/ln_1/g"]), w, f"{scope}/attn", causal)
        x = x + mlp(norm(x, w[f"{scope}/ln_2/g"]), w, f"{scope}/mlp")
    return norm(x, w["model/ln_f/g"]), w


def logits(weights, tokens, mask=None):
    x, w = final(weights, tokens, mask)
    return np.einsum("bsf,vf->bsv", x, w["model/wtet"])


def class_logits(weights, tokens, mask=None):
    x, w = final(weights, tokens, mask)
    return np.einsum("bf,cf->bc", x.mean(1), w["model/clf/wclf"])


def loss(weights, tokens, mask=None):
    """AR: mean over all pixels. BERT: mean over each image's masked pixels, then over images. In nats."""
    shares = softmax(logits(weights, tokens, mask))
    nll = -np.log(np.take_along_axis(shares, tokens[:, :, None], axis=2)[:, :, 0])
    return nll.mean() if mask is None else np.mean((nll * mask).sum(1) / mask.sum(1))
