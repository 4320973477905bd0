#!/bin/bash
# sbatch configs/scale/slurm.sh: 8 machines of 8 GPUs; the job goes on by itself when its time is over.
#SBATCH --job-name=igpt
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x.%j.log

srun igpt fit --config configs/imagenet/ar_xl_64.yaml --config configs/scale/8x8gpu_fsdp.yaml \
  --name imagenet_ar_xl_64 --ckpt_path last
code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
