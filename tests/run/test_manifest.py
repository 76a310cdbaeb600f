"""The record of finished stages survives a round trip, and nothing else passes for one."""

import json

import pytest

from rlhfctl.errors import CheckpointError, UnsafeError
from rlhfctl.run.files import digest
from rlhfctl.run.manifest import Artifact, Manifest, StageRecord
from rlhfctl.run.sealed import sealed


def record(stage="sft", **changed):
    values = {
        "stage": stage,
        "recipe_part": {"seed": 1, "sft": {"learning_rate": 1e-4, "init_from": None}},
        "inputs": {"sft": Artifact("sft", "ab")},
        "outputs": {stage: Artifact(stage, "cd")},
        "metrics": {"eval_loss": 0.1 + 0.2, "per_annotator": {"ann": {"pairs": 3}}},
        "versions": {"torch": "2"},
        "seed": 1,
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5,
    }
    return StageRecord(**(values | changed))


def rewrite(path, **fields):
    """Change fields of the record of SFT in a manifest's file."""
    value = json.loads(path.read_text())
    value["stages"]["sft"] |= fields
    path.write_text(json.dumps(sealed(value)))


def test_what_is_saved_is_what_is_read(tmp_path):
    manifest = Manifest().with_stage(record()).with_stage(record("rm"))
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == manifest


def test_a_run_without_a_manifest_has_no_finished_stages(tmp_path):
    assert Manifest.load(tmp_path / "manifest.json").stages == {}


def test_a_stage_recorded_again_replaces_its_earlier_record():
    manifest = Manifest().with_stage(record(seconds=1.0)).with_stage(record(seconds=2.0))
    assert [stage.seconds for stage in manifest.stages.values()] == [2.0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps(sealed({"schema_version": 2})),
        json.dumps(sealed({"schema_version": 2, "stages": {"sft": {}}})),
        json.dumps(sealed({"schema_version": 2, "stages": []})),
        '{"schema_version": 2, "stages": ' + "[" * 9000 + "]" * 9000 + "}",
    ],
)
def test_a_damaged_manifest_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        Manifest.load(path)
    assert str(path) in str(caught.value)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", "1"),
        ("seed", 1.5),
        ("metrics", []),
        ("outputs", {"sft": "sft"}),
        ("outputs", {"sft": {"path": 3, "sha256": "cd"}}),
        ("versions", {"torch": 2}),
        ("extra", 1),
    ],
)
def test_every_field_has_its_type(tmp_path, field, value):
    path = tmp_path / "manifest.json"
    Manifest().with_stage(record()).save(path)
    rewrite(path, **{field: value})
    with pytest.raises(CheckpointError, match=f"damaged.*{field}"):
        Manifest.load(path)


@pytest.mark.parametrize("output", ["../elsewhere", "/etc", "sft/../../x"])
def test_an_output_outside_of_the_run_is_refused(tmp_path, output):
    path = tmp_path / "manifest.json"
    Manifest().with_stage(record(outputs={"sft": Artifact(output, "cd")})).save(path)
    with pytest.raises(UnsafeError, match="leads out of the run folder") as caught:
        Manifest.load(path)
    assert caught.value.where == str(path)


def test_a_manifest_of_another_schema_is_refused(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"schema_version": 1, "stages": {}}))
    with pytest.raises(CheckpointError, match="version 1"):
        Manifest.load(path)


def test_every_changed_byte_is_found(tmp_path):
    path = tmp_path / "manifest.json"
    Manifest().with_stage(record()).save(path)
    content = path.read_bytes()
    for at in range(len(content) - 1):  # the last one is a line break
        for bit in (0x01, 0x02, 0x20):
            path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
            try:
                changed = json.loads(path.read_bytes())
            except ValueError:
                changed = None
            if changed == json.loads(content):
                continue  # white space
            with pytest.raises(CheckpointError):
                Manifest.load(path)


def test_an_edited_manifest_is_named(tmp_path):
    path = tmp_path / "manifest.json"
    Manifest().with_stage(record()).save(path)
    path.write_text(path.read_text().replace('"seconds": 1.5', '"seconds": 1.4'))
    with pytest.raises(CheckpointError, match="edited or damaged") as caught:
        Manifest.load(path)
    assert "restore a copy" in caught.value.hint


def test_paths_inside_the_run_are_relative_and_others_absolute(tmp_path):
    root, other = tmp_path / "run", tmp_path / "other"
    for folder in (root / "sft", other):
        folder.mkdir(parents=True)
        (folder / "weights").write_text("1")
    assert Artifact.of(root / "sft", root) == Artifact("sft", digest(root / "sft"))
    assert Artifact.of(other, root).path == str(other)
