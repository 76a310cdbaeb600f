"""Folders from strangers: links out of them, code in configs, weights in pickles."""

import json
import shutil

import pytest

from rlhfctl.errors import CheckpointError, UnsafeError
from rlhfctl.models.foreign_files import ForeignFiles
from rlhfctl.models.hub import model_source
from rlhfctl.models.scan import scan_folder
from rlhfctl.recipe.reward_sources import RewardModelLoading
from rlhfctl.recipe.schema import ModelSection

MEGATRON = {"megatron_config": {"tensor_model_parallel_size": 1}, "megatron_core": "stranger"}


@pytest.fixture
def folder(tmp_path):
    """A model folder with a config and weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "auto_map": null}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "outside.json").write_text("{}")
    return folder


@pytest.mark.parametrize("target", ["../outside.json", "/etc/passwd", "../../..", "loop.json"])
def test_a_link_out_of_the_folder_is_refused_by_name(folder, target):
    (folder / "loop.json").symlink_to(target)
    with pytest.raises(UnsafeError, match="leads out") as caught:
        scan_folder(folder)
    assert caught.value.where == str(folder / "loop.json")
    assert caught.value.exit_code == 11


def test_links_within_the_folder_and_a_link_to_it_are_fine(folder, tmp_path):
    (folder / "same.safetensors").symlink_to("model.safetensors")
    (tmp_path / "latest").symlink_to(folder)
    scan_folder(tmp_path / "latest")


def test_a_snapshot_in_the_hubs_cache_links_to_its_own_blobs_only(folder, tmp_path):
    repository = tmp_path / "hub" / "models--a--b"
    snapshot, blobs = repository / "snapshots" / "0123", repository / "blobs"
    shutil.copytree(folder, snapshot)
    blobs.mkdir()
    (blobs / "ab12").write_text("{}")
    (snapshot / "tokenizer_config.json").symlink_to("../../blobs/ab12")
    scan_folder(snapshot)
    (tmp_path / "hub" / "models--c--d").mkdir()
    (tmp_path / "hub" / "models--c--d" / "stolen").write_text("{}")
    (snapshot / "generation_config.json").symlink_to("../../../models--c--d/stolen")
    with pytest.raises(UnsafeError, match="generation_config"):
        scan_folder(snapshot)


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ("config.json", {"text_config": {"x": [{"auto_map": {"A": "b.C"}}]}}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B", None]}}, "auto_map"),
        ("config.json", {"_attn_implementation_internal": "a/b"}, "_attn_implementation_internal"),
        ("config.json", {"sub": {"trust_remote_code": True}}, "trust_remote_code"),
        ("adapter_config.json", {"megatron_core": "stranger"}, "megatron_core"),
        ("adapter_config.json", MEGATRON, "megatron_config, megatron_core"),
    ],
)
def test_a_config_that_names_code_is_refused_at_any_depth(folder, name, content, key):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(UnsafeError, match="running code") as caught:
        scan_folder(folder)
    assert f"({key})" in caught.value.what
    assert caught.value.where == str(folder / name)


def test_allowed_code_is_that_of_the_pinned_repository_only(folder):
    config = folder / "config.json"
    config.write_text('{"auto_map": {"AutoModel": "modeling.Model"}}')
    scan_folder(folder, remote_code=True)
    config.write_text('{"auto_map": {"AutoModel": "other/repository--modeling.Model"}}')
    with pytest.raises(UnsafeError, match="auto_map"):
        scan_folder(folder, remote_code=True)


def test_peft_s_own_defaults_are_fine(folder):
    (folder / "adapter_config.json").write_text(
        '{"megatron_core": "megatron.core", "megatron_config": null, "auto_mapping": null}'
    )
    scan_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "model.pt"])
def test_weights_in_a_pickle_only_are_refused(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(UnsafeError, match="pickle"):
        scan_folder(folder)


@pytest.mark.parametrize(
    "content", [b"[" * 9000 + b"]" * 9000, b"{", b'"\xff"'], ids=["deep", "cut", "latin"]
)
def test_a_damaged_config_is_an_error_that_names_the_file(folder, content):
    (folder / "config.json").write_bytes(content)
    for load in (
        lambda: scan_folder(folder),
        lambda: model_source(ModelSection(name_or_path=str(folder))),
        lambda: ForeignFiles.find(str(folder), RewardModelLoading(), "key"),
    ):
        with pytest.raises(CheckpointError, match=r"config\.json|model"):
            load()
