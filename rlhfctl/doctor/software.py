"""Checks of Python, the libraries, the GPU with its driver, and bitsandbytes."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.activity import byte_size
from rlhfctl.doctor.check import Check, worse
from rlhfctl.run.versions import installed_versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.schema import Recipe

_SHOWN = ("rlhfctl", "python", "torch", "transformers", "trl", "peft", "bitsandbytes")
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_DEVICE_FILE = Path("/dev/nvidiactl")
_VERSION = re.compile(r"\b\d{3,}\.\d+(?:\.\d+)?\b")
_MINIMUM_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580"}
"""Lowest Linux driver that every release of a CUDA major version runs on.

Source: NVIDIA, CUDA Toolkit release notes, table "CUDA Toolkit and Minimum Required Driver Version
for CUDA Minor Version Compatibility". NVIDIA's compatibility libraries, as in its images, allow
older drivers on data-centre GPUs, so a GPU that computes counts more than this table.
"""
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Levels of 4-bit NormalFloat (Dettmers et al. 2023, QLoRA, appendix E)."""


def check_versions() -> Iterator[Check]:
    """Check the installed versions against those that rlhfctl requires."""
    from packaging.requirements import Requirement

    versions = installed_versions()
    shown = ", ".join(f"{name} {versions[name]}" for name in _SHOWN if name in versions)
    broken = []
    for line in metadata.requires("rlhfctl") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            broken.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            broken.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if broken:
        remedy = "Install rlhfctl again: pip install --upgrade rlhfctl"
        yield Check("versions", "fail", f"{'; '.join(broken)} ({shown})", remedy)
    else:
        yield Check("versions", "ok", shown)


def check_gpu() -> Iterator[Check]:
    """Check that torch computes on the GPU, if there is one, and in which precision."""
    import torch

    from rlhfctl.models.device import device, unused_accelerator

    unused = unused_accelerator()
    if unused is not None:
        yield Check("GPU", "warn", f"rlhfctl does not use {unused}; stages run on the CPU")
    elif device().type == "cpu":
        yield _without_gpu(torch.cuda.is_available(), torch.version.cuda, driver_version())
    else:
        yield from _with_gpu()


def _with_gpu() -> Iterator[Check]:
    import torch

    from rlhfctl.models.device import device

    name, index = torch.cuda.get_device_name(), device()
    release = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    driver = driver_version()
    versions = f"{name}, {release}" + (f", driver {driver}" if driver else "")
    try:
        row = torch.ones(64, 64, device=index)
        total = float((row @ row).sum())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        remedy = _driver_remedy(torch.version.cuda)
        yield Check("GPU", "fail", f"{versions}: it does not compute ({reason})", remedy)
        return
    if total != 64.0**3:
        yield Check("GPU", "fail", f"{versions}: a product is wrong", "Replace the GPU.")
        return
    yield Check("GPU", "ok", f"{versions}; {torch.cuda.device_count()} visible")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        yield Check("bfloat16", "ok", "the GPU computes in it")
    else:
        what = "the GPU only emulates it, so model.dtype: auto computes in float16"
        yield Check("bfloat16", "warn", what, "Leave model.dtype at auto.")
    free, total_bytes = torch.cuda.mem_get_info()
    share = f"{byte_size(free)} of {byte_size(total_bytes)} free"
    if free < total_bytes / 2:
        yield Check("GPU memory", "warn", share, "nvidia-smi lists the processes that use it.")
    else:
        yield Check("GPU memory", "ok", share)


def _without_gpu(by_choice: bool, release: str | None, driver: str | None) -> Check:
    """Return why no GPU is used.

    Args:
        by_choice: Whether torch sees a GPU that the user has switched off.
        release: CUDA release of torch; None for its CPU build.
        driver: Version of NVIDIA's driver; None if there is none.
    """
    if by_choice:
        return Check("GPU", "ok", "not used, since ACCELERATE_USE_CPU is set")
    if driver is None:
        return Check("GPU", "ok", "none; stages run on the CPU")
    if release is None:
        what = f"NVIDIA's driver {driver} is here, and torch is its CPU build"
        return Check("GPU", "warn", what, "Install torch with CUDA: https://pytorch.org")
    if not _DEVICE_FILE.exists():
        what = f"NVIDIA's driver {driver} is here, and no GPU is passed to this container"
        return Check("GPU", "warn", what, "Start it with `docker run --gpus all`.")
    what = f"torch cannot use CUDA {release} with driver {driver}"
    return Check("GPU", "fail", what, _driver_remedy(release))


def _driver_remedy(release: str | None) -> str:
    major = int((release or "0").partition(".")[0])
    minimum = _MINIMUM_DRIVERS.get(major)
    if minimum is None:
        return "Install a torch that fits the GPU and its driver: https://pytorch.org"
    return (
        f"CUDA {major} needs driver {minimum} or newer: update the driver, or install a torch that "
        "was built with an older CUDA."
    )


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None if there is none, or it does not say."""
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8")
    except OSError:
        program = shutil.which("nvidia-smi")
        if program is None:
            return None
        query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            text = subprocess.run(
                query, capture_output=True, text=True, timeout=10, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return None
    version = _VERSION.search(text)
    return version.group() if version else None


def check_bitsandbytes(recipe: Recipe | None) -> Check:
    """Check that bitsandbytes quantises and restores NF4's own levels."""
    needed = recipe is not None and recipe.model.quantization != "none"
    # It says that faster kernels are missing, which is nothing to repair.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    remedy = "Install it again: pip install --force-reinstall --no-deps bitsandbytes"
    try:
        import torch
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        from rlhfctl.models.device import device

        levels = torch.tensor(_NF4 * 4, device=device())
        packed, state = quantize_4bit(levels, quant_type="nf4")
        error = float((dequantize_4bit(packed, state) - levels).abs().max())
    except (ImportError, OSError, RuntimeError, AttributeError, NotImplementedError) as fault:
        reason = str(fault).strip().splitlines()[:1]
        what = f"does not work ({reason[0] if reason else type(fault).__name__})"
        return Check("bitsandbytes", worse(needed), what, remedy)
    if error > 1e-6:
        what = f"NF4 levels are restored with an error of {error:.3g}"
        return Check("bitsandbytes", worse(needed), what, remedy)
    return Check("bitsandbytes", "ok", f"4-bit weights work on {device()}")
