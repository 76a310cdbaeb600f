"""Names in libraries: what `validate` finds out about them without training anything."""

from __future__ import annotations

import json
import os
import re
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import pytest

from rlhfctl.errors import RecipeError
from rlhfctl.preflight import Finding, check_files
from rlhfctl.preflight.libraries import check_architecture, check_packages
from rlhfctl.recipe import library_names
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.schema import Recipe
from rlhfctl.world.model import embedded_path

if TYPE_CHECKING:
    from pathlib import Path

HUB: dict[str, dict[str, Any]] = {
    "model": {"name_or_path": "nobody/nothing"},
    "data": {
        kind: {"source": "nobody/rows"} for kind in ("demonstrations", "comparisons", "prompts")
    },
}


def findings(sections: dict[str, Any]) -> dict[str, Finding]:
    """Return the findings about libraries, by key."""
    recipe = Recipe.model_validate(sections)
    checks = [*check_packages(recipe), *check_architecture(recipe)]
    return {finding.where: finding for finding in checks}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the packages that seem installed; a test fills it."""
    names: set[str] = set()
    monkeypatch.setattr(
        "rlhfctl.preflight.libraries._is_installed", lambda package: package in names
    )
    return names


def test_the_names_are_those_of_transformers():
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.training_args import OptimizerNames

    others = {
        name
        for name in (member.value for member in OptimizerNames)
        if name.startswith(("galore", "apollo"))
    }
    others |= {"adamw_torch_xla", "adamw_torch_npu_fused", "adamw_anyprecision"}
    offered = set(get_args(library_names.Optimizer))
    assert offered | others == {member.value for member in OptimizerNames}
    assert not offered & others
    assert set(library_names.ATTENTIONS) - {"eager"} == {
        name for name in ALL_ATTENTION_FUNCTIONS if "paged" not in name
    }


def test_compiled_sampling_needs_a_compiler_and_pythons_headers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = "generation.cache_implementation"
    sections = HUB | {"generation": {"cache_implementation": "static"}}
    assert key not in findings(HUB)
    assert findings(sections)[key].level == "ok"
    with monkeypatch.context() as patch:
        # A mount needs root, so the flag is stated here; docker's --tmpfs has it.
        patch.setattr("os.statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "new" / "folder"))
        what = findings(sections)[key].what
    assert f"runs code from {tmp_path}/new/folder, which is mounted noexec" in what
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    assert f"Python's headers are missing: {tmp_path}" in findings(sections)[key].what
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    finding = findings(sections)[key]
    assert (finding.level, finding.fault) == ("error", "environment")
    assert finding.what.endswith("there is no C++ compiler: no-such-compiler")
    assert "g++ and python3-dev" in finding.hint


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("sft.optim=adamx", "did you mean adamw_torch?"),
        ("reward_model.optim=lion8bit", "did you mean lion_8bit?"),
        ("ppo.optim=adam", "must be one of"),
        ("model.attn_implementation=flash_attention_9", "did you mean flash_attention_"),
        ("model.attn_implementation=a/b/c", "must be one of eager, sdpa"),
        ("sft.lr_scheduler_type=cosin", "did you mean cosine?"),
        ("model.quantization=4bits", "did you mean 4bit?"),
        ("model.dtype=bf16", "must be one of 'auto', 'float32', 'bfloat16'"),
        ("tracking.report_to=[wand]", "did you mean wandb?"),
        ("lora.target_modules=a(", "is no regular expression"),
        ("lora.target_modules=[]", "is empty"),
        ("lora.target_modules=[q_proj, '']", "has an empty name"),
    ],
)
def test_a_name_that_no_library_has_is_refused_at_the_recipes_edge(setting, said, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("name: a\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [setting])
    assert said in str(caught.value)
    (detail,) = caught.value.details
    assert setting.partition("=")[0] in detail.where


@pytest.mark.parametrize("name", [*library_names.ATTENTIONS, "kernels-community/flash-attn@v1:f"])
def test_attention_of_transformers_and_repositories_of_kernels_are_allowed(name):
    assert library_names.attention_fault(name) is None


def test_an_optimizers_package_is_looked_for(installed):
    sections = {"sft": {"optim": "schedule_free_adamw"}, "ppo": {"optim": "adamw_8bit"}}
    missing = findings(sections)
    assert missing["sft.optim"].level == "error"
    assert missing["sft.optim"].fault == "environment"
    assert "the package schedulefree" in missing["sft.optim"].what
    assert missing["reward_model.optim"] == Finding("ok", "adamw_torch", "reward_model.optim")
    assert missing["ppo.optim"].level == "not checked"
    installed.add("schedulefree")
    assert findings(sections)["sft.optim"].level == "ok"


def test_a_trackers_package_is_looked_for(installed):
    sections = {"tracking": {"report_to": ["tensorboard"]}}
    missing = findings(sections)["tracking.report_to"]
    assert (missing.level, missing.hint) == ("warning", "install it: pip install tensorboard")
    installed.add("tensorboardX")
    assert findings(sections)["tracking.report_to"].level == "ok"


def test_attention_packages_are_looked_for(installed):
    sections = HUB | {"model": HUB["model"] | {"attn_implementation": "flash_attention_2"}}
    key = "model.attn_implementation"
    assert findings(sections)[key].level == "error"
    installed.add("kernels")
    assert findings(sections)[key].level == "not checked"
    installed.add("flash_attn")
    assert findings(sections)[key].what == "the config of nobody/nothing is on the Hub"


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_prj"], "q_prj matches no module of the architecture llama"),
        (["q_proj", "foo"], "foo matches no module"),
        ("foo", "foo matches no module"),
        ("q_proj", "write [q_proj]"),
        (["norm"], "peft cannot adapt these modules: a target matches a LlamaRMSNorm\nName"),
        (["lm_head"], "matches the language model's head only"),
    ],
)
def test_targets_that_the_architecture_lacks_are_refused(targets, said):
    with pytest.raises(RecipeError) as caught:
        findings({"lora": {"target_modules": targets}})
    assert said in str(caught.value)
    assert caught.value.where == "lora.target_modules"


@pytest.mark.parametrize(
    ("targets", "each"),
    [(["q_proj", "v_proj"], 2), (r".*\.self_attn\.[qk]_proj", 2), (["mlp.up_proj"], 1)],
)
def test_targets_that_it_has_are_counted(targets, each):
    layers = json.loads((embedded_path() / "config.json").read_text())["num_hidden_layers"]
    found = findings({"lora": {"target_modules": targets}})["lora.target_modules"]
    assert found == Finding("ok", f"{each * layers} modules with an adapter", "lora.target_modules")


def test_attention_that_an_architecture_lacks_is_refused(tmp_path):
    config = {"model_type": "gpt_neo", "attention_types": [[["global"], 2]], "num_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 32, "num_heads": 2}))
    model = {"name_or_path": str(tmp_path), "attn_implementation": "sdpa"}
    with pytest.raises(RecipeError, match="the architecture gpt_neo cannot use it"):
        findings(HUB | {"model": model})
    eager = findings(HUB | {"model": model | {"attn_implementation": "eager"}})
    assert eager["model.attn_implementation"].level == "ok"


def test_what_is_on_the_hub_is_not_called_ok(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lora = {"target_modules": ["q_proj"]}
    model = HUB["model"] | {"chat_template": "tool_use"}
    checks = check_files(Recipe.model_validate(HUB | {"lora": lora, "model": model}))
    unchecked = {finding.where for finding in checks if finding.level == "not checked"}
    assert unchecked == {
        "model.name_or_path",
        "model.chat_template",
        "lora.target_modules",
        *(f"data.{kind}" for kind in HUB["data"]),
    }
    assert [finding.where for finding in checks if finding.level == "ok"] == [
        "sft.optim, reward_model.optim, ppo.optim"
    ]


def test_a_local_tokenizer_is_looked_at(tmp_path):
    copy = shutil.copytree(embedded_path(), tmp_path / "model")
    checks = check_files(Recipe.model_validate({"model": {"name_or_path": str(copy)}}))
    said = [finding.what for finding in checks if finding.where == "model.name_or_path"]
    assert f"{copy}: local model" in said
    pattern = re.compile(r"tokenizer of [\d,]+ tokens, with a chat template")
    assert any(map(pattern.fullmatch, said))


def test_a_model_in_the_hubs_cache_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    repository = tmp_path / "models--nobody--nothing"
    shutil.copytree(embedded_path(), repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    sections = HUB | {"lora": {"target_modules": ["q_prj"]}}
    with pytest.raises(RecipeError, match="q_prj matches no module"):
        check_files(Recipe.model_validate(sections))
    sections["lora"] = {"target_modules": ["q_proj"]}
    checks = check_files(Recipe.model_validate(sections))
    ok = [finding.what.partition(" ")[2] for finding in checks if finding.level == "ok"]
    assert ok[:2] == ["config in the Hub's cache", "modules with an adapter"]
    assert re.match(r"of [\d,]+ tokens", ok[-1])


def test_ligers_package_is_looked_for_and_its_gpu_is_not(installed: set[str]) -> None:
    sections = HUB | {"model": {"name_or_path": "nobody/nothing", "use_liger_kernel": True}}
    key = "model.use_liger_kernel"
    assert key not in findings(HUB)
    missing = findings(sections)[key]
    assert (missing.level, missing.fault) == ("error", "environment")
    assert "rlhfctl[liger]" in missing.hint
    installed.add("liger_kernel")
    assert findings(sections)[key].level == "not checked"
