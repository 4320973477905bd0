"""The order of a data set's classes is that of the checkpoint a run goes on from."""

import torch

from igpt.checkpoints.format import CHECKPOINT_KEY, read_checkpoint, write_checkpoint
from tests.conftest import small_model
from tests.datamodules.pictures import class_tree
from tests.stopping import stop


def test_a_run_that_an_earlier_version_began_goes_on_with_its_order_of_classes(digits_run, igpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    class_tree(tmp_path / "icons", {"1": 16, "2": 16, "10": 16})
    (tmp_path / "icons.yaml").write_text(f"""{small_model(digits_run.palette)}
data:
  class_path: igpt_datamodules.ImageFolder
  init_args: {{root: icons, resolution: 8, batch_size: 8}}
trainer: {{max_steps: 4, enable_progress_bar: false, accelerator: cpu, precision: 32-true, log_every_n_steps: 1}}
samples: {{num: 0, completions: 0}}
""")
    assert igpt("fit", "--config", "icons.yaml", *stop(2))[0] == 75
    path = tmp_path / "runs" / "icons" / "checkpoints" / "last.ckpt"
    content = read_checkpoint(path)
    classes = content[CHECKPOINT_KEY]["data"]["init_args"].pop("classes")  # the version before knew no such option
    assert list(classes) == ["1", "2", "10"]
    write_checkpoint(content, path.resolve())
    code, _, err = igpt("fit", "--config", "icons.yaml", "--ckpt_path", "last")
    assert code == 0, err
    ended = read_checkpoint(path)
    assert ended["global_step"] == 4
    assert list(ended[CHECKPOINT_KEY]["data"]["init_args"]["classes"]) == ["1", "10", "2"]
    assert all(torch.isfinite(tensor).all() for tensor in ended["state_dict"].values())
