"""Driver, libraries and quantisation: ok, warn or fail, with the remedy."""

import sys
import types

import pytest

from rlhfctl.doctor import software
from rlhfctl.recipe.schema import Recipe

FOUR_BIT = Recipe.model_validate({"model": {"quantization": "4bit"}})
OPEN_DRIVER = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
    "GCC version:  gcc version 12.3.0 (Ubuntu)\n"
)


@pytest.mark.parametrize(
    ("release", "driver", "has_device", "level", "text"),
    [
        (None, None, False, "ok", "stages run on the CPU"),
        ("13.0", None, False, "ok", "stages run on the CPU"),
        (None, "570.86.15", True, "warn", "torch is its CPU build"),
        ("13.0", "570.86.15", False, "warn", "docker run --gpus all"),
        ("13.0", "570.86.15", True, "fail", "CUDA 13 needs driver 580 or newer"),
        ("12.8", "515.43.04", True, "fail", "CUDA 12 needs driver 525.60.13 or newer"),
        ("14.0", "515.43.04", True, "fail", "Install a torch that fits"),
    ],
)
def test_why_no_gpu_is_used(monkeypatch, tmp_path, release, driver, has_device, level, text):
    device = tmp_path / "nvidiactl"
    if has_device:
        device.touch()
    monkeypatch.setattr(software, "_DEVICE_FILE", device)
    check = software._without_gpu(False, release, driver)
    assert check.level == level
    assert text in f"{check.what} {check.remedy}"


def test_the_drivers_version_is_read_from_its_file(monkeypatch, tmp_path):
    file = tmp_path / "version"
    monkeypatch.setattr(software, "_DRIVER_FILE", file)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert software.driver_version() is None
    file.write_text(OPEN_DRIVER)
    assert software.driver_version() == "570.86.15"


def test_a_missing_or_old_library_fails(monkeypatch):
    (check,) = software.check_versions()
    assert check.level == "ok"
    lines = ["torch>=99", "no-such-package-here>=1", 'also-missing; extra == "tax"']
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: lines)
    (check,) = software.check_versions()
    assert check.level == "fail"
    assert "is not >=99" in check.what
    assert "no-such-package-here is not installed" in check.what
    assert "also-missing" not in check.what


def test_bitsandbytes_is_tried_and_needed_only_by_a_quantised_recipe(monkeypatch):
    assert software.check_bitsandbytes(FOUR_BIT).level == "ok"
    wrong = types.ModuleType("bitsandbytes.functional")
    wrong.__dict__["quantize_4bit"] = lambda levels, quant_type: (levels, quant_type)
    wrong.__dict__["dequantize_4bit"] = lambda packed, _state: packed + 0.01
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", wrong)
    assert "error of 0.01" in software.check_bitsandbytes(None).what
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    assert software.check_bitsandbytes(None).level == "warn"
    assert software.check_bitsandbytes(Recipe()).level == "warn"
    assert software.check_bitsandbytes(FOUR_BIT).level == "fail"
