"""Loading of recipes: values, their origins, and error messages."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rlhfctl.errors import RecipeError, UnsafeError, UsageError
from rlhfctl.recipe.load import (
    Override,
    dump_recipe,
    load_recipe,
)
from rlhfctl.recipe.schema import Recipe
from tests.present import present

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.chdir(tmp_path)

    def _write(text: str, name: str = "x.yaml") -> Path:
        from pathlib import Path

        Path(name).write_text(text)
        return Path(name)

    return _write


def lines_of(path: Path, *overrides: str | Override) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).splitlines()


class TestValues:
    def test_unnamed_keys_have_their_defaults(self, write):
        assert load_recipe(write("name: small")).recipe == Recipe(name="small")

    def test_scientific_notation_is_a_number(self, write):
        recipe = load_recipe(write("ppo: {learning_rate: 1e-5, beta: .5}")).recipe
        assert (recipe.ppo.learning_rate, recipe.ppo.beta) == (1e-5, 0.5)

    def test_an_integer_is_accepted_as_a_float(self, write):
        assert present(load_recipe(write("lora: {alpha: 8}")).recipe.lora).alpha == 8.0

    def test_text_that_yaml_1_1_reads_as_another_type_stays_text(self, write):
        recipe = load_recipe(write("name: no\nmodel: {revision: 12:30:45}")).recipe
        assert (recipe.name, recipe.model.revision) == ("no", "12:30:45")

    def test_null_turns_a_section_off(self, write):
        assert load_recipe(write("lora: null")).recipe.lora is None


class TestOrigins:
    def test_every_value_has_an_origin(self, write):
        write("name: parent\nppo:\n  beta: 0.1\n  gamma: 0.9\n", "parent.yaml")
        path = write("extends: parent.yaml\nppo:\n  beta: 0.2\n")
        origins = load_recipe(
            path, ["seed=3", Override("ppo.episodes", "640", "--episodes")]
        ).origins
        assert origins["name"] == "parent.yaml:1"
        assert origins["ppo.gamma"] == "parent.yaml:4"
        assert origins["ppo.beta"] == "x.yaml:3"
        assert origins["seed"] == "--set"
        assert origins["ppo.episodes"] == "--episodes"
        assert origins["ppo.gae_lambda"] == "default"

    def test_a_table_names_each_of_its_entries(self, write):
        path = write("data:\n  prompts:\n    columns:\n      prompt: question\n")
        assert load_recipe(path).origins["data.prompts.columns.prompt"] == "x.yaml:4"

    def test_an_override_that_is_a_section_marks_the_keys_it_gives(self, write):
        origins = load_recipe(write("lora: null"), ["lora={r: 4}"]).origins
        assert (origins["lora.r"], origins["lora.alpha"]) == ("--set", "default")


class TestExtends:
    def test_sections_merge_and_lists_are_replaced(self, write):
        write("ppo: {beta: 0.1}\ngeneration: {stop_tokens: [a, b]}", "parent.yaml")
        recipe = load_recipe(write("extends: parent.yaml\ngeneration: {stop_tokens: [c]}")).recipe
        assert (recipe.ppo.beta, recipe.generation.stop_tokens) == (0.1, ["c"])

    def test_the_name_is_relative_to_the_recipe(self, write, tmp_path):
        (tmp_path / "deep").mkdir()
        write("seed: 5", "parent.yaml")
        assert load_recipe(write("extends: ../parent.yaml", "deep/x.yaml")).recipe.seed == 5

    @pytest.mark.parametrize("parent", ["../../../../../../etc/passwd", "/etc/passwd", "link.yaml"])
    def test_a_recipe_elsewhere_is_not_read(self, write, tmp_path, parent):
        (tmp_path / "link.yaml").symlink_to("/etc/passwd")
        with pytest.raises(UnsafeError, match=f"extends: {parent} is outside") as caught:
            load_recipe(write(f"seed: 1\nextends: {parent}"))
        assert caught.value.where == "x.yaml:2"
        assert "root" not in str(caught.value)

    def test_a_shipped_recipe_is_found_from_anywhere(self, write):
        assert (
            load_recipe(write("extends: base.yaml\nname: mine")).origins["ppo.beta"].startswith("/")
        )

    def test_a_mounted_config_map_extends_a_shipped_recipe(self, tmp_path, monkeypatch):
        """Kubernetes mounts files as links into a hidden folder beside them."""
        (tmp_path / "..data").mkdir()
        (tmp_path / "..data" / "recipe.yaml").write_text("extends: base\nname: mine")
        (tmp_path / "recipe.yaml").symlink_to("..data/recipe.yaml")
        monkeypatch.chdir("/")
        assert load_recipe(tmp_path / "recipe.yaml").recipe.name == "mine"

    def test_a_circle_is_refused(self, write):
        write("extends: x.yaml", "y.yaml")
        (line,) = lines_of(write("extends: y.yaml"))
        assert line.startswith("y.yaml:1: extends: x.yaml extends itself")

    def test_a_missing_parent_is_named(self, write):
        assert lines_of(write("seed: 1\nextends: nowhere.yaml")) == [
            "x.yaml:2: extends: there is no recipe nowhere.yaml"
        ]


class TestOverrides:
    def test_a_text_key_takes_what_was_typed(self, write):
        recipe = load_recipe(write("seed: 1"), ["name=010", "model.revision=1e5"]).recipe
        assert (recipe.name, recipe.model.revision) == ("010", "1e5")

    def test_null_sets_an_optional_key_to_none(self, write):
        path = write("ppo: {sft: runs/a/sft, value_clip_range: 0.1}")
        recipe = load_recipe(path, ["ppo.sft=null", "ppo.value_clip_range=null"]).recipe
        assert (recipe.ppo.sft, recipe.ppo.value_clip_range) == (None, None)

    def test_the_schema_types_the_value(self, write):
        assert lines_of(write("seed: 1"), "ppo.episodes=many") == [
            '--set: ppo.episodes: is "many", but must be a whole number'
        ]

    def test_an_unknown_key_gets_a_suggestion(self, write):
        assert lines_of(write("seed: 1"), "ppo.learning_rat=1") == [
            "--set: ppo.learning_rat: unknown key; did you mean learning_rate?"
        ]

    def test_an_override_turns_a_null_section_on(self, write):
        assert present(load_recipe(write("lora: null"), ["lora.r=4"]).recipe.lora).r == 4

    def test_a_gate_s_name_may_have_dots(self, write):
        recipe = load_recipe(write("seed: 1"), ["evaluation.gates.policies.ppo.kl=<=12"]).recipe
        assert recipe.evaluation.gates == {"policies.ppo.kl": "<=12"}

    def test_a_list_is_read_as_one(self, write):
        recipe = load_recipe(write("seed: 1"), ["lora.target_modules=[q_proj, v_proj]"]).recipe
        assert present(recipe.lora).target_modules == ["q_proj", "v_proj"]

    def test_the_last_of_two_wins(self, write):
        assert load_recipe(write("seed: 1"), ["seed=2", "seed=3"]).recipe.seed == 3

    @pytest.mark.parametrize("text", ["ppo.beta", "=1", " =1"])
    def test_anything_but_key_and_value_is_a_usage_error(self, write, text):
        with pytest.raises(UsageError, match="key=value"):
            load_recipe(write("seed: 1"), [text])


class TestErrors:
    def test_all_errors_come_at_once_with_their_lines(self, write):
        path = write(
            "name: Not A Name\n"
            "ppo:\n"
            "  learning_rat: 1e-5\n"
            "  beta: fast\n"
            "  gamma: 2\n"
            "data:\n"
            "  comparisons:\n"
            "model: {dtype: double, trust_remote_code: yes}\n"
            "seed: 1.5\n"
        )
        lines = lines_of(path)
        assert [line.split(": ")[0] for line in lines] == [
            f"x.yaml:{number}" for number in (1, 3, 4, 5, 7, 8, 8, 9)
        ]
        assert lines[1] == "x.yaml:3: ppo.learning_rat: unknown key; did you mean learning_rate?"
        assert lines[2] == 'x.yaml:4: ppo.beta: is "fast", but must be a number'
        assert lines[3] == "x.yaml:5: ppo.gamma: is 2, but must be at most 1.0"
        assert "must be a section of keys" in lines[4]
        assert "one of 'auto', 'float32'" in lines[5]
        assert lines[6].endswith('is "yes", but must be true or false')

    def test_a_key_in_the_wrong_section_gets_the_right_one_suggested(self, write):
        assert lines_of(write("beta: 0.1")) == [
            "x.yaml:1: beta: unknown key; did you mean ppo.beta or dpo.beta?"
        ]

    def test_a_value_of_several_types_is_one_error(self, write):
        (line,) = lines_of(write("lora: {target_modules: 5}"))
        assert line.endswith("is 5, but must be text or a list; put it in quotes")

    def test_a_contradiction_points_at_a_key_it_names(self, write):
        path = write("seed: 1\nppo:\n  minibatch_size: 30\n")
        (line,) = lines_of(path)
        assert line.startswith("x.yaml:3: ppo: rollout_batch_size (128) must be a multiple")

    def test_a_contradiction_made_by_an_override_points_at_it(self, write):
        (line,) = lines_of(write("lora: null"), "model.quantization=4bit")
        assert line.startswith("--set: lora: null trains all weights")

    def test_an_error_in_the_parent_names_the_parent(self, write):
        write("\nppo: {beta: x}", "parent.yaml")
        (line,) = lines_of(write("extends: parent.yaml"))
        assert line.startswith("parent.yaml:2: ppo.beta")

    def test_duplicate_keys_are_errors_with_both_lines(self, write):
        assert lines_of(write("seed: 1\nppo:\n  beta: 1\n  beta: 2\nseed: 2")) == [
            "x.yaml:4: ppo.beta: given twice, first on line 3",
            "x.yaml:5: seed: given twice, first on line 1",
        ]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "x.yaml: the recipe is empty"),
            (b"# only a comment\n", "x.yaml: the recipe is empty"),
            (b"- a\n- b\n", "x.yaml:1: a recipe is made of `key: value` lines"),
            (b"name: x\nppo: [1, 2", "x.yaml:2: "),
            (b"name: x\nppo: {beta: 0.1\n", "x.yaml:3: "),
            ("name: x\nmodel: é".encode("latin-1"), "x.yaml:2: not UTF-8 text (byte 0xe9)"),
            (b"name: !!python/name:os.system x", "x.yaml:1: tags such as"),
            (b"a: &a [*a]", "x.yaml:1: an alias is inside the value it repeats"),
            (b"seed: 1\na: \x1b[2J", "x.yaml:2: character U+001B is not allowed"),
            (b"#" * (1 << 20) + b"\nseed: 1", "x.yaml:1: larger than 1 MiB"),
            (b"[" * 10_000, "x.yaml:1: nested more than 32 levels deep"),
            (b"extends: [a]", "x.yaml:1: extends: must be the name of a single recipe file"),
        ],
    )
    def test_an_invalid_recipe_is_refused_with_its_line(self, write, content, said):
        path = write("")
        path.write_bytes(content)
        (line,) = lines_of(path)
        assert line.startswith(said)

    @pytest.mark.parametrize(
        ("override", "where"),
        [
            ('name="\\ud800"', "name"),
            ('model.chat_template_kwargs={"a": "\\udfff"}', "model.chat_template_kwargs.a"),
            ('evaluation.gates={"\\ud800": ">=1"}', "evaluation.gates"),
            ('generation.stop_tokens=["x", "\\ud800"]', "generation.stop_tokens"),
        ],
    )
    def test_half_a_character_is_refused(self, write, override, where):
        with pytest.raises(RecipeError) as caught:
            load_recipe(write("seed: 1"), [override])
        assert str(caught.value) == f"--set: {where}: not valid Unicode"

    def test_expanding_aliases_are_refused(self, write):
        rows = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
        rows += [
            f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]"
            for below, name in zip("abcdefgh", "bcdefghi", strict=True)
        ]
        (line,) = lines_of(write("\n".join(rows)))
        assert "aliases expand to more than" in line

    def test_a_missing_file_lists_what_is_shipped(self, tmp_path):
        with pytest.raises(UsageError, match=r"base\.yaml"):
            load_recipe(tmp_path / "none.yaml")

    @pytest.mark.parametrize("name", ["x" * 5000, "x\0y", "recipe.yaml/below"])
    def test_a_name_that_no_file_can_have_is_a_missing_file(self, tmp_path, name):
        (tmp_path / "recipe.yaml").write_text("seed: 1")
        with pytest.raises(UsageError, match="there is no such recipe"):
            load_recipe(tmp_path / name)

    def test_a_folder_is_not_a_recipe(self, tmp_path):
        with pytest.raises(RecipeError, match="is a folder"):
            load_recipe(tmp_path)

    def test_contradictions_between_sections_come_at_once(self, write):
        path = write(
            "generation: {max_new_tokens: 8}\n"
            "ppo: {min_response_length: 9, reward_sources: [{source: hub:lab/judge}]}\n"
            "evaluation: {judge_rm: hub:lab/judge}\n"
            "reward_model: {judge_share: 0.2}\n"
            "model: {name_or_path: a/b, trust_remote_code: true, revision: main}\n"
        )
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        assert "ppo.min_response_length (9)" in str(caught.value)
        assert "generation.max_new_tokens (8)" in str(caught.value)
        assert "model.revision" in str(caught.value)
        assert "no independent judge" in str(caught.value)
        assert "judge_share is set, and no reward model is trained" in str(caught.value)


class TestDump:
    def test_every_key_is_written_and_read_back_equal(self, write):
        path = write(
            "name: x\nmodel: {revision: '1e-5', chat_template: 'no'}\n"
            "ppo: {learning_rate: 1e-7}\n"
            "generation: {stop_tokens: ['010', '', 'null', \"a\\nb: é\"]}\n"
            "evaluation: {gates: {win_rate: '>=0.55'}}\n"
        )
        loaded = load_recipe(path)
        again = load_recipe(write(dump_recipe(loaded.recipe), "again.yaml"))
        assert again.recipe == loaded.recipe
        assert "default" not in again.origins.values()


def test_reading_a_recipe_imports_no_torch():
    code = (
        "import sys; from rlhfctl.recipe.load import load_recipe, shipped_recipe;"
        "load_recipe(shipped_recipe('base'));"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'datasets')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestOmittedData:
    """With another model than the embedded one, its world's rows are used only if asked for."""

    OTHER = "model: {name_or_path: org/model}\n"
    GIVEN = "data: {demonstrations: {source: d.jsonl}, comparisons: {source: c.jsonl}}\n"
    WORLD = (
        "data: {demonstrations: {source: embedded}, comparisons: {source: embedded}, "
        "prompts: {source: embedded}}\n"
    )

    def test_every_omitted_section_is_named(self, write):
        lines = lines_of(write(self.OTHER))
        assert [line.split(": ")[1] for line in lines] == [
            "data.demonstrations.source",
            "data.comparisons.source",
            "data.prompts.source",
        ]
        (line,) = lines_of(write(self.OTHER + self.GIVEN))
        assert line.startswith("x.yaml:1: data.prompts.source: not given for the model org/model")

    def test_what_a_recipe_inherits_is_not_given(self, write):
        (line,) = lines_of(write("extends: base.yaml\n" + self.OTHER + self.GIVEN))
        assert "data.prompts.source: not given" in line
        lines = lines_of(write(self.WORLD), "model.name_or_path=org/model")
        assert [line.split(":")[0] for line in lines] == ["--set"] * 3

    def test_what_is_asked_for_beside_the_model_or_later_is_used(self, write):
        for text, overrides in (
            (self.OTHER + self.WORLD, []),
            (self.OTHER + self.GIVEN, ["data.prompts.source=embedded"]),
            (self.WORLD, []),
        ):
            recipe = load_recipe(write(text), overrides).recipe
            assert recipe.data.prompts.source == "embedded"
            assert load_recipe(write(dump_recipe(recipe))).recipe == recipe
