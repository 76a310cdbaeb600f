"""A changed byte in what carries its digest is found when it is read again."""

import pytest

from rlhfctl.errors import RlhfctlError
from rlhfctl.recipe.load import dump_recipe, load_recipe
from rlhfctl.recipe.schema import Recipe
from rlhfctl.run.sealed import (
    SEAL,
    damage,
    has_changed,
    processes_of,
    read_sealed,
    seal,
    with_digest_line,
    write_sealed,
)


@pytest.fixture
def checkpoint(tmp_path):
    for name in ("weights", "nested/state"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    seal(tmp_path, processes=2)
    return tmp_path


def test_a_whole_checkpoint_has_no_damage(checkpoint):
    assert damage(checkpoint) is None
    assert processes_of(checkpoint) == 2


@pytest.mark.parametrize("name", ["weights", "nested/state"])
def test_a_changed_or_missing_file_is_named(checkpoint, name):
    (checkpoint / name).write_text("other")
    assert damage(checkpoint) == f"{name} was changed"
    (checkpoint / name).unlink()
    assert damage(checkpoint) == f"{name} cannot be read (No such file or directory)"
    (checkpoint / SEAL).unlink()
    assert damage(checkpoint) == f"{SEAL} is damaged"


def test_a_value_is_read_as_written_or_not_at_all(tmp_path):
    path = tmp_path / "value.json"
    value = {"a": [1, 0.1 + 0.2, None], "b": {"ä": "é", "nested": {"2": True}}}
    write_sealed(path, value)
    assert read_sealed(path) == value
    path.write_text(path.read_text().replace("true", "false"))
    assert read_sealed(path) is None
    path.write_text("[" * 100_000)
    assert read_sealed(path) is None
    assert read_sealed(tmp_path / "missing") is None


def test_every_changed_byte_of_a_runs_recipe_is_found(tmp_path):
    text = with_digest_line(dump_recipe(Recipe()))
    assert not has_changed(text)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert load_recipe(path).recipe == Recipe()
    content = text.encode()
    kept = []
    for at in range(len(content) - 1):
        changed = content[:at] + bytes([content[at] ^ 0x02]) + content[at + 1 :]
        if has_changed(changed.decode("utf-8", "replace")):
            continue
        kept.append(at)
        path.write_bytes(changed)
        with pytest.raises(RlhfctlError):
            load_recipe(path)
    assert kept, "the comment's mark and the line break before it are for the loader to find"


def test_text_without_a_digest_is_taken_as_it_is():
    assert not has_changed("name: mine\n")
    assert not has_changed("")
