"""Long work counts what is done, with the time to go, on a terminal; where nobody looks it says nothing."""

import pytest

from igpt.system.terminal import Progress, clock

STAGES = {
    "palette": ("images: colours counted", "colours: k-means begins", "rounds at most: k-means"),
    "digits_run": ("positions drawn",),
    "digits_bert_run": ("passes: pictures drawn",),
}


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("work", STAGES)
def test_palettes_and_samples_count_on_a_terminal_and_nowhere_else(
    work, terminal, igpt, request, tmp_path, monkeypatch
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("igpt.system.terminal.EVERY_S", (0.0, 0.0))  # every step is shown
    if work == "palette":
        words = ["palette", "--data", "Digits", "--colors", 5, "--out", tmp_path / "p.npy"]
    else:
        ckpt = request.getfixturevalue(work).checkpoint
        words = ["sample", "--ckpt", ckpt, "--num", 1, "--accelerator", "cpu", "--out", tmp_path / "s.png"]
    code, _, err = igpt(*words)
    assert code == 0, err
    for stage in STAGES[work]:
        assert (f" {stage}, 0:0" in err) is terminal, err
    assert "\r" in err if terminal else not err.strip()
    assert not err.split("\r")[-1].strip()  # the line is taken away


def test_the_time_to_go_is_that_of_the_pace_so_far(capfd, monkeypatch):
    monkeypatch.setattr("igpt.system.terminal.EVERY_S", (0.0, 0.0))
    with Progress(200, "images") as progress:
        progress._began -= 76
        progress.add(100)
        progress.add(100)
    assert capfd.readouterr().err == "100 of 200 images, 1:16 left\n200 of 200 images\n"
    assert clock(61.4) == "1:01"
