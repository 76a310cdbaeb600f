"""Public names of `rlhfctl.models` and their signatures."""

import dataclasses
import inspect
import subprocess
import sys
from operator import attrgetter

import pytest

import rlhfctl.models
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context

SIGNATURES = {
    "load_roles": (
        "(recipe: Recipe, tokenizer: Any, stop_token_ids: Sequence[int], sft: Path, "
        "rms: Sequence[Path] = (), policy: Path | None = None, critic: CriticInit | None = None, "
        "*, shard: bool = False, gradient_checkpointing: bool = False) -> Roles"
    ),
    "Roles.with_sampling": "(self, *, temperature: float, max_new_tokens: int) -> Roles",
    "Roles.log_probs": (
        "(self, role: Role, batch: Sequences, *, training: bool = False, "
        "temperature: float | None = None, entropy: bool | None = None) -> TokenLogProbs"
    ),
    "Roles.values": "(self, batch: Sequences, *, training: bool = False) -> Tensor",
    "Roles.log_probs_and_values": (
        "(self, batch: Sequences, *, training: bool = False) -> tuple[TokenLogProbs, Tensor]"
    ),
    "Roles.raw_scores": "(self, batch: Sequences, number: int = 0) -> Tensor",
    "Roles.scores": "(self, batch: Sequences, number: int = 0) -> Tensor",
    "Roles.generate": (
        "(self, prompts: Sequence[Sequence[int]], seeds: Sequence[Seed], role: Role = 'policy') "
        "-> list[list[int]]"
    ),
    "Roles.ended": "(self, response: Sequence[int]) -> bool",
    "Roles.trainable": "(self, role: Role) -> dict[str, torch.nn.Parameter]",
}


def signature(path):
    return str(inspect.signature(attrgetter(path)(rlhfctl.models))).replace("'", "")


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures_are_stable(path):
    assert signature(path) == SIGNATURES[path].replace("'", "")


def test_exported_names():
    assert rlhfctl.models.__all__ == ["Roles", "load_roles"]
    with pytest.raises(AttributeError, match="no attribute 'roles_of'"):
        _ = rlhfctl.models.roles_of


def test_importing_the_package_does_not_import_torch():
    code = "import sys, rlhfctl.models; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_roles_are_immutable_and_with_sampling_shares_the_models(tiny_run):
    context = open_stage_context(tiny_run.recipe)
    roles = open_roles(context, {"sft": tiny_run.stage("sft")})
    with pytest.raises(dataclasses.FrozenInstanceError):
        roles.temperature = 0.5  # type: ignore[misc]
    other = roles.with_sampling(temperature=0.5, max_new_tokens=3)
    assert (other.temperature, other.max_new_tokens) == (0.5, 3)
    assert other.models is roles.models
    assert roles.temperature == tiny_run.recipe.generation.temperature
    assert roles.max_new_tokens == tiny_run.recipe.generation.max_new_tokens
