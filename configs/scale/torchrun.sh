#!/bin/bash
# HEAD=first-machine configs/scale/torchrun.sh, on each of 8 machines; the same again to go on after a stop.
exec torchrun --nnodes 8 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint "${HEAD:?name the first machine}:29500" \
  -m igpt fit --config configs/imagenet/ar_xl_64.yaml --config configs/scale/8x8gpu_fsdp.yaml \
  --name imagenet_ar_xl_64 --ckpt_path last
