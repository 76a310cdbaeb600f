"""Device and precision: what a card computes in itself, and GPUs that are not used."""

import pytest
import torch

from rlhfctl.errors import EnvironmentFault, ExitCode
from rlhfctl.models import device as devices
from rlhfctl.recipe.schema import ModelSection

AUTO = ModelSection()
REAL = ModelSection(name_or_path="Qwen/Qwen3-0.6B")


@pytest.fixture
def card(monkeypatch):
    """Stub torch's answers about a CUDA card: ``card(name, bfloat16)``."""

    def stub(name, bfloat16, hip=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
        # As torch does: a card that lacks bfloat16 still "supports" it, by emulation.
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True: bfloat16 or including_emulation,
        )
        monkeypatch.setattr(torch.version, "hip", hip)

    return stub


def test_a_card_with_bfloat16_computes_in_it(card):
    card("NVIDIA A100", bfloat16=True)
    assert devices.effective_dtype(AUTO) is torch.bfloat16
    assert devices.trainer_precision(AUTO) == {
        "use_cpu": False,
        "bf16": True,
        "fp16": False,
        "dataloader_pin_memory": True,
    }
    assert list(devices.device_notes(AUTO)) == []


def test_a_card_that_emulates_bfloat16_computes_in_float16_with_a_scaled_loss(card):
    card("Tesla T4", bfloat16=False)
    assert devices.device().type == "cuda"
    assert devices.effective_dtype(AUTO) is torch.float16
    precision = devices.trainer_precision(AUTO)
    assert (precision["fp16"], precision["bf16"]) == (True, False)
    (note,) = devices.device_notes(AUTO)
    assert note == "Tesla T4 only emulates bfloat16, so the model computes in float16"
    asked = ModelSection(dtype="bfloat16")
    assert devices.effective_dtype(asked) is torch.bfloat16
    assert "slowly" in next(devices.device_notes(asked))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_trainer_computes_in_the_dtype_that_the_recipe_names(card, dtype):
    card("NVIDIA A100", bfloat16=True)
    precision = devices.trainer_precision(ModelSection(dtype=dtype))
    named = {"float32": (False, False), "float16": (True, False), "bfloat16": (False, True)}
    assert (precision["fp16"], precision["bf16"]) == named[dtype]


def test_rocm_is_named(card):
    card("AMD Instinct MI300X", bfloat16=True, hip="6.3.42131")
    assert devices.device().type == "cuda"
    (note,) = devices.device_notes(AUTO)
    assert note == "AMD Instinct MI300X is used through ROCm 6.3.42131"


def test_the_cpu_is_taken_where_accelerate_is_told_so(card, monkeypatch):
    card("NVIDIA A100", bfloat16=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert devices.device() == torch.device("cpu")
    assert devices.effective_dtype(AUTO) is torch.float32
    assert devices.effective_quantization(ModelSection(quantization="auto")) == "none"
    assert devices.trainer_precision(AUTO)["use_cpu"] is True


@pytest.mark.parametrize(("backend", "name"), [("backends.mps", "MPS"), ("xpu", "XPU")])
def test_gpus_of_other_kinds_are_refused_by_name_for_real_models(monkeypatch, backend, name):
    module = torch
    for part in backend.split("."):
        module = getattr(module, part)
    monkeypatch.setattr(module, "is_available", lambda: True)
    with pytest.raises(EnvironmentFault, match=name) as raised:
        devices.check_device(REAL)
    assert raised.value.exit_code == ExitCode.ENVIRONMENT
    assert "ACCELERATE_USE_CPU=1" in raised.value.hint
    devices.check_device(AUTO)
    (note,) = devices.device_notes(AUTO)
    assert name in note
    assert devices.device() == torch.device("cpu")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    devices.check_device(REAL)
    assert list(devices.device_notes(REAL)) == []


def test_a_machine_with_a_cpu_alone_has_nothing_to_say():
    devices.check_device(REAL)
    assert list(devices.device_notes(REAL)) == []
    assert devices.effective_dtype(AUTO) is torch.float32
