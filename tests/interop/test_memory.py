"""iGPT-L, 1.4 billion parameters: 5.4 GB in float32 is in memory once, never twice."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

from igpt.model.transformer import PRESETS, parameter_count
from tests.interop.models import colors

LIMIT = 8 * 2**30
MEASURE = """
import resource, sys
from igpt.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
sys.exit(code)
"""


def write_zeros(folder):
    """Their model of the size of iGPT-L with all weights zero, as a file with a hole for its data: it takes no room."""
    config = ImageGPTConfig(n_layer=48, n_embd=1536, n_head=16)
    with torch.device("meta"):
        model = ImageGPTForCausalImageModeling(config)
    header, end = {}, 0
    for name, tensor in model.state_dict().items():
        size = 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    words = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        file.truncate(8 + len(words) + end)
    (folder / "config.json").write_text(config.to_json_string())
    return end


def peak(*arguments):
    """Peak of resident memory of a command, in bytes."""
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, arguments)], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


@pytest.mark.slow
def test_import_and_export_of_the_largest_released_model_stay_under_8_gib(tmp_path):
    size = write_zeros(tmp_path)
    assert size > 5.4e9
    if shutil.disk_usage(tmp_path).free < 3 * size:
        pytest.skip("needs 16 GB of disk")
    np.save(tmp_path / "palette.npy", colors(512))
    out = tmp_path / "l.ckpt"
    imported = peak("import", "--path", tmp_path, "--out", out, "--palette", tmp_path / "palette.npy")
    assert out.stat().st_size > 4 * parameter_count(PRESETS["L"])
    exported = peak("export", "--ckpt", out, "--out", tmp_path / "back")
    print(f"import {imported / 2**30:.2f} GiB, export {exported / 2**30:.2f} GiB")
    shutil.rmtree(tmp_path)
    assert max(imported, exported) < LIMIT
