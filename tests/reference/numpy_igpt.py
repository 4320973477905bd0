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
        if prefix + ".q_norm.weight" in weights:
            q = np.stack([norm(row, weights, prefix + ".q_norm") for row in q])
            k = np.stack([norm(row, weights, prefix + ".k_norm") for row in k])
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


def states(weights, tokens, *, n_layers, heads, causal, masked=None):
    """Residual stream before each block and after the last: n_layers + 1 arrays (T, D), of one image of tokens (T,)."""
    weights = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    length = len(tokens)
    h = np.zeros((length, weights["wpe"].shape[1]))
    for i in range(length):
        if causal:
            content = weights["sos"] if i == 0 else weights["wte.weight"][tokens[i - 1]]
        else:
            content = 0.0 if masked is not None and masked[i] else weights["wte.weight"][tokens[i]]
        h[i] = content + weights["wpe"][i]
    found = [h]
    for layer in range(n_layers):
        prefix = f"blocks.{layer}"
        a = h + attention(rows(norm, h, weights, prefix + ".ln_1"), weights, prefix + ".attn", heads, causal)
        h = a + mlp(rows(norm, a, weights, prefix + ".ln_2"), weights, prefix + ".mlp")
        found.append(h)
    return found


def normed_states(weights, tokens, *, n_layers, **shape):
    """The same behind the norm that comes next: that of the block, at the end the final one."""
    names = [f"blocks.{layer}.ln_1" for layer in range(n_layers)] + ["ln_f"]
    raw = states(weights, tokens, n_layers=n_layers, **shape)
    return [rows(norm, h, weights, name) for h, name in zip(raw, names, strict=True)]


def run(weights, tokens, **shape):
    """Logits (T, V) and features (n_layers + 1, D) of one image of tokens (T,)."""
    normed = normed_states(weights, tokens, **shape)
    return normed[-1] @ weights["head.weight"].T, np.stack([n.mean(0) for n in normed])


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
