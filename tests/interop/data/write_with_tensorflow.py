"""Writes the checkpoints beside it with the real TensorFlow, and what TensorFlow says of them.

They were made with tensorflow 2.21.0, in an environment of its own, by `python write_with_tensorflow.py`: a session
of TensorFlow 1 with OpenAI's variable names and shapes, one step of its Adam, and its Saver. `ar` lies in three shards,
with Adam's slots and a class head; `bert` in one shard, without. `NAME.json` holds tokens, logits and losses, which
TensorFlow computed from the variables by the formulas of the released code.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
V, T, D, HEADS, LAYERS, CLASSES = 5, 4, 6, 2, 2, 3
tf1 = tf.compat.v1
tf1.disable_eager_execution()


def variable(name, shape, rng):
    offset = 1.0 if name.endswith("/g") else 0.0
    values = (offset + rng.normal(0, 0.4, shape)).astype(np.float32)
    return tf1.get_variable(name, initializer=values)


def norm(x, g):
    return x * tf1.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-5) * g


def attention(x, v, causal):
    q, k, value = (tf.einsum("bsf,hef->bhse", x, v[f"attn/{name}_proj"]) for name in "qkv")
    scores = tf.einsum("bhse,bhte->bhst", q, k) / np.sqrt(D / HEADS)
    if causal:
        scores -= 1e10 * (1 - tf.linalg.band_part(tf.ones((T, T)), -1, 0))
    mixed = tf.einsum("bhst,bhte->bhse", tf.nn.softmax(scores), value)
    return tf.einsum("bhse,hef->bsf", mixed, v["attn/c_proj"])


def block(x, rng, causal):
    v = {f"ln_{i}/g": variable(f"ln_{i}/g", [D], rng) for i in (1, 2)}
    v |= {f"attn/{n}_proj": variable(f"attn/{n}_proj", [HEADS, D // HEADS, D], rng) for n in "qkvc"}
    v |= {"mlp/c_fc/w": variable("mlp/c_fc/w", [D, 4 * D], rng)}
    v |= {"mlp/c_proj/w": variable("mlp/c_proj/w", [4 * D, D], rng)}
    x += attention(norm(x, v["ln_1/g"]), v, causal)
    hidden = tf.einsum("bsf,fg->bsg", norm(x, v["ln_2/g"]), v["mlp/c_fc/w"])
    return x + tf.einsum("bsg,gf->bsf", hidden * tf.sigmoid(1.702 * hidden), v["mlp/c_proj/w"])


def network(tokens, mask, rng, causal):
    """Logits, loss, and class logits where causal (the class head is only in one of the files)."""
    wpe, wte, wtet = (variable(n, [rows, D], rng) for n, rows in (("wpe", T), ("wte", V), ("wtet", V)))
    x = tf.gather(wte, tokens)
    if causal:
        sos = tf.tile(variable("sos", [D], rng)[None, None], [len(tokens), 1, 1])
        x = tf.concat([sos, x[:, :-1]], 1)
    else:
        x *= 1 - mask[:, :, None]
    x += wpe
    for layer in range(LAYERS):
        with tf1.variable_scope(f"h{layer}"), tf.device(f"/cpu:{layer if causal else 0}"):
            x = block(x, rng, causal)
    x = norm(x, variable("ln_f/g", [D], rng))
    logits = tf.einsum("bsf,vf->bsv", x, wtet)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens, logits=logits)
    if not causal:
        return logits, tf.reduce_mean(tf.reduce_sum(losses * mask, 1) / tf.reduce_sum(mask, 1)), None
    with tf1.variable_scope("clf"):
        head = variable("wclf", [CLASSES, D], rng)
    return logits, tf.reduce_mean(losses), tf.einsum("bf,cf->bc", tf.reduce_mean(x, 1), head)


def write(name, causal, seed):
    tf1.reset_default_graph()
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, V, (3, T))
    mask = np.array([[1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 0]], np.float32)
    with tf1.variable_scope("model"):
        logits, loss, classes = network(tokens, mask, rng, causal)
    step = []
    if causal:
        total = loss + tf.reduce_mean(classes[:, 0])
        step = [tf1.train.AdamOptimizer(0.01).minimize(total, tf1.train.get_or_create_global_step())]
    with tf1.Session(config=tf1.ConfigProto(device_count={"CPU": 2})) as session:
        session.run(tf1.global_variables_initializer())
        session.run(step)
        saver = tf1.train.Saver(sharded=causal)
        saver.save(session, str(HERE / name), write_meta_graph=False, write_state=False)
        facts = {"tokens": tokens, "mask": mask, "logits": session.run(logits), "loss": session.run(loss)}
        if causal:
            facts["class_logits"] = session.run(classes)
    text = json.dumps({key: np.asarray(value, np.float64).round(7).tolist() for key, value in facts.items()})
    (HERE / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    write("ar", True, seed=1)
    write("bert", False, seed=2)
