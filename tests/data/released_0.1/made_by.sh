#!/bin/sh
# What version 0.1 wrote, so that later versions can be held to reading it. Run once, in this folder; not to be run again.
set -e
python - <<'PY'
from pathlib import Path

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
levels = np.array([0, 36, 73, 109, 146, 182, 219, 255], dtype=np.uint8)
for split, count in (("train", 12), ("test", 10)):
    for label, name in enumerate(("dark", "light")):
        folder = Path("images") / split / name
        folder.mkdir(parents=True)
        for number in range(count):
            picture = levels[rng.integers(0, 7, (4, 4)) + label]
            Image.fromarray(picture).save(folder / f"{number}.png")
PY
igpt palette --data ImageFolder --data.init_args.root images --data.init_args.resolution 4 --colors 8 --out palette.npy
for name in ar bert joint; do igpt fit --config $name.yaml --trainer.precision 32-true; done
igpt probe --ckpt runs/ar/checkpoints/last.ckpt --method lbfgs,knn --precision 32-true
# unfinished_sgd.ckpt is sgd/layers_0_1/sgd.ckpt of this probe, stopped after its second epoch:
# igpt probe --ckpt runs/ar/checkpoints/last.ckpt --method sgd --layers 0,1 --epochs 4 --precision 32-true --accelerator cpu
igpt sample --ckpt runs/ar/checkpoints/last.ckpt --num 3 --top_k 1 --out samples.png
igpt sample --ckpt runs/bert/checkpoints/last.ckpt --rows 2 --num 1 --top_k 1 --steps 8 --out infilled.png
python - <<'PY'
import numpy as np
import torch

import igpt

tokens = torch.arange(32).reshape(2, 16) * 5 % 8
ar, bert, joint = (igpt.load(f"runs/{name}/checkpoints/last.ckpt").module for name in ("ar", "bert", "joint"))
with torch.no_grad():
    found = {
        "ar": ar.transformer(tokens, causal=True),
        "bert": bert.transformer(tokens, causal=False),
        "joint": joint.class_logits(tokens),
    }
np.savez("logits.npz", tokens=tokens.numpy(), **{name: logits.numpy() for name, logits in found.items()})
PY
igpt tokenize --data ImageFolder --data.init_args.root images --data.init_args.resolution 4 --palette palette.npy \
  --shard_images 10 --workers 1 --out tokens
for name in ar bert joint; do # last.ckpt is a link to the newest step's; a file of its own is what stays everywhere
  cp -L runs/$name/checkpoints/last.ckpt $name.ckpt
  rm -r runs/$name/checkpoints && mkdir runs/$name/checkpoints && mv $name.ckpt runs/$name/checkpoints/last.ckpt
done
rm -r runs/*/events.out.tfevents.* palette.png samples.png infilled.png runs/ar/probe/layers.png
