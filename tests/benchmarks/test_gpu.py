"""The command that runs what waits for a GPU: order, time, results of earlier calls, bars."""

import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import gpu  # noqa: E402

OPTIONS = {"--shape", "--prompt-length", "--response-length", "--batch", "--output"}


def writing(text, code=0):
    """A measurement whose benchmark writes a text to its result."""

    class Stated(gpu.Measurement):
        def command(self, result, *, tiny):
            program = f"import sys; open(sys.argv[1], 'w').write({text!r}); sys.exit({code})"
            return [sys.executable, "-c", program, str(result)]

    return Stated("stated", "", 2.0, "", (), gpu._decode)


@pytest.mark.parametrize("measurement", gpu.MEASUREMENTS, ids=lambda m: m.name)
def test_a_rehearsal_changes_the_sizes_alone(measurement):
    command = measurement.command(Path("result.json"), tiny=True)
    assert command[command.index("--shape") + 1] == "minute"
    assert "--quantization" not in command
    whole = {part for part in measurement.options if part.startswith("--")}
    rehearsed = {part for part in command if part.startswith("--")}
    assert rehearsed == (whole | OPTIONS | set(measurement.rehearsal)) - {"--quantization"}


def test_a_result_of_an_earlier_call_is_not_measured_again(tmp_path):
    end = time.monotonic() + 600
    assert gpu._measure(writing("first"), tmp_path, end, tiny=False) == "done"
    assert gpu._measure(writing("second"), tmp_path, end, tiny=False) == "has a result"
    assert (tmp_path / "stated.json").read_text() == "first"


def test_nothing_starts_that_would_not_end_in_time_and_a_failure_is_no_result(tmp_path):
    soon = time.monotonic() + 60
    assert "needs 2 minutes, 1.0 are left" in gpu._measure(writing("x"), tmp_path, soon, tiny=False)
    later = time.monotonic() + 600
    assert "exit code 3" in gpu._measure(writing("x", 3), tmp_path, later, tiny=False)
    assert not (tmp_path / "stated.json").exists()


def test_bars_are_lower_or_upper_bounds():
    result = {
        "peak_bytes": {"rlhfctl PPO": 26 * 2**30, "SFT step": 20 * 2**30},
        "sides": {"rlhfctl PPO": {"seconds": [10.0, 6.0]}},
        "work": {"rollouts": 2, "batch": 64},
    }
    peak, ratio, speed = gpu._memory(24.0, 8.0)(result)
    assert (peak.value, peak.holds) == (26.0, False)
    assert (ratio.value, ratio.holds) == (1.3, True)
    assert (speed.value, speed.holds) == (8.0, True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu"])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert "there is no CUDA GPU; --tiny" in capsys.readouterr().err
