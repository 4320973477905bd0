import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
def test_ctrl_c_in_training_ends_with_130_and_one_line(digits_run, tmp_path):
    command = [sys.executable, "-m", "igpt", "fit", "--config", str(digits_run.config), "--runs_dir", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--trainer.max_steps", "100000"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("mini/checkpoints/step=*.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("igpt fit: stopped by Ctrl-C at step ")
    assert "Traceback" not in err
