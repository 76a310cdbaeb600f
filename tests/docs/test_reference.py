"""The generated pages of docs/reference match the code."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages as the code gives them now."""
    folder = tmp_path_factory.mktemp("reference")
    script = ROOT / "scripts" / "reference.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, cwd=ROOT)
    return folder


@pytest.mark.parametrize("page", ["cli.md", "exit-codes.md", "recipe.md"])
def test_generated_page_is_current(generated: Path, page: str) -> None:
    committed = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert (generated / page).read_text(encoding="utf-8") == committed, (
        "run scripts/reference.py and commit the result"
    )


def test_no_other_page_is_generated(generated: Path) -> None:
    assert {path.name for path in generated.iterdir()} == {"cli.md", "exit-codes.md", "recipe.md"}


def test_recipe_page_has_every_key_of_the_schema(generated: Path) -> None:
    from rlhfctl.recipe.keys import all_keys

    text = (generated / "recipe.md").read_text(encoding="utf-8")
    assert all(f"| `{path[-1]}` |" in text for path in all_keys())


def test_command_page_has_every_command(generated: Path) -> None:
    text = (generated / "cli.md").read_text(encoding="utf-8")
    commands = ("sft", "train-rm", "ppo", "eval", "run", "show", "validate", "sweep", "report")
    assert all(f"\n## rlhfctl {command}\n" in text for command in commands)
