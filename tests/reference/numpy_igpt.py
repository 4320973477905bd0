"""The method in plain NumPy, written from the paper's formulas and not from igpt's code.

One image at a time, one head at a time, one position at a time where that is clearest. Weights come in as a plain
dict with the names of a state dict; matrices are stored (out, in).
"""

import numpy as np

EPS = 1e-5


def norm(x, weights, prefix):
    gain = weights[prefix + ".weight"]
    if prefix + ".bias" in weights:  # layer norm
        centred = x - x.mean()
        return centred / np.sqrt((centred**2).mean() + EPS) * gain + weights[prefix + ".bias"]
    return x / np.sqrt((x**2).mean() + EPS) * gain


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


def attention(n, weights, prefix, heads, causal):
    length, width = n.shape
    size = width // heads
    w_q, w_k, w_v = np.split(weights[prefix + ".qkv.weight"], 3, axis=0)
    out = np.zeros_like(n)
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        q, k, v = n @ w_q[rows].T, n @ w_k[rows].T, n @ w_v[rows].T
        for i in range(length):
            seen = i + 1 if causal else length
            share = softmax(k[:seen] @ q[i] / np.sqrt(size))
            out[i, rows] = share @ v[:seen]
    return out @ weights[prefix + ".proj.weight"].T


def mlp(n, weights, prefix):
    hidden = n @ weights[prefix + ".fc.weight"].T
    return (hidden / (1 + np.exp(-1.702 * hidden))) @ weights[prefix + ".proj.weight"].T


def rows(function, h, *args):
    return np.stack([function(row, *args) for row in h])


def run(weights, tokens, *, n_layers, heads, causal, masked=None):
    """Logits (T, V) and features (n_layers + 1, D) of one image of tokens (T,)."""
    weights = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    length = len(tokens)
    h = np.zeros((length, weights["wpe"].shape[1]))
    for i in range(length):
        if causal:
            content = weights["sos"] if i == 0 else weights["wte.weight"][tokens[i - 1]]
        else:
            content = 0.0 if masked is not None and masked[i] else weights["wte.weight"][tokens[i]]
        h[i] = content + weights["wpe"][i]
    features = []
    for layer in range(n_layers):
        prefix = f"blocks.{layer}"
        n = rows(norm, h, weights, prefix + ".ln_1")
        features.append(n.mean(0))
        a = h + attention(n, weights, prefix + ".attn", heads, causal)
        h = a + mlp(rows(norm, a, weights, prefix + ".ln_2"), weights, prefix + ".mlp")
    final = rows(norm, h, weights, "ln_f")
    features.append(final.mean(0))
    return final @ weights["head.weight"].T, np.stack(features)


def next_pixel_loss(weights, images, **shape):
    """Mean over images and pixels of -log p(x_i | x_<i), nats."""
    total = 0.0
    for tokens in images:
        logits, _ = run(weights, tokens, causal=True, **shape)
        for i, token in enumerate(tokens):
            total -= np.log(softmax(logits[i])[token])
    return total / images.size


def masked_pixel_loss(weights, images, masks, **shape):
    """Mean over the masked positions of each image, then over the images that have any."""
    losses = []
    for tokens, masked in zip(images, masks, strict=True):
        if not masked.any():
            continue
        logits, _ = run(weights, tokens, causal=False, masked=masked, **shape)
        losses.append(-np.mean([np.log(softmax(logits[i])[tokens[i]]) for i in np.flatnonzero(masked)]))
    return float(np.mean(losses)) if losses else 0.0


def class_loss(weights, classifier, images, labels, *, causal, masks=None, **shape):
    """Mean over images of -log p(class), from the mean-pooled final norm (its mean is the last layer feature)."""
    total = 0.0
    for index, tokens in enumerate(images):
        masked = None if masks is None else masks[index]
        _, features = run(weights, tokens, causal=causal, masked=masked, **shape)
        total -= np.log(softmax(classifier @ features[-1])[labels[index]])
    return total / len(images)
