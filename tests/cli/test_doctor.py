"""`doctor`: exit code 0 unless a check failed, and nothing of a fault hidden."""

import json


def test_a_sound_machine_passes_and_a_failed_check_gives_4(rlhfctl, folder):
    done = rlhfctl("doctor", "--offline", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {"versions", "GPU", "bitsandbytes", "runs", "Hub cache", "locks", "Hub"} <= set(checks)
    assert checks["Hub"]["what"] == "not asked: offline mode"
    (folder / "file").touch()
    failed = rlhfctl("doctor", "small.yaml", "--offline", "--runs-dir", "file/runs")
    assert failed.returncode == 4
    assert "fail  runs" in failed.stdout
    assert ", 1 fail" in failed.stdout
