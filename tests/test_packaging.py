"""The wheel, the lock files, the Dockerfile, and the documentation that names them."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rlhfctl import __version__
from rlhfctl.errors import EXIT_CODE_MEANINGS

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Package -> version of every line of a lock file."""
    found: dict[str, str] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", " ")):
            package, _, version = line.partition(";")[0].rstrip(" \\").partition("==")
            assert version, f"{name}: {line} is not an exact version"
            found[canonicalize_name(package)] = version.strip()
    return found


def requirements(*, dev: bool) -> list[Requirement]:
    lines = [*PYPROJECT["project"]["dependencies"]]
    return [Requirement(line) for line in lines + dev * PYPROJECT["dependency-groups"]["dev"]]


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as pip builds it, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    built = subprocess.run([*pip, *options, str(ROOT)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("rlhfctl-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed wheel, to be put before all else on the path."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*pip, *options, str(wheel)], capture_output=True, text=True, check=True)
    return folder


def run_python(
    installed: Path, tmp_path: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_every_module_asset_and_recipe_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "rlhfctl").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = [path for path in (ROOT / "recipes").rglob("*") if path.is_file()]
    recipes = {f"rlhfctl/{path.relative_to(ROOT).as_posix()}" for path in shipped}
    assert held == package | recipes
    assert {"rlhfctl/recipes/base.yaml", "rlhfctl/py.typed"} <= held
    assert any(fnmatch(name, "rlhfctl/world/assets/*.safetensors") for name in held)


def test_the_wheel_carries_its_licence_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"rlhfctl-{__version__}.dist-info"
        assert archive.read(f"{info}/licenses/LICENSE").decode().count("Apache License") >= 1
        assert (
            "rlhfctl = rlhfctl.__main__:main" in archive.read(f"{info}/entry_points.txt").decode()
        )


def test_the_installed_wheel_runs_far_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    done = run_python(installed, tmp_path, "-m", "rlhfctl", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert __version__ in done.stdout


def test_the_installed_wheel_finds_its_recipes_and_its_model(
    installed: Path, tmp_path: Path
) -> None:
    program = (
        "from rlhfctl.recipe.load import load_recipe, shipped_recipe\n"
        "from rlhfctl.world.model import embedded_path\n"
        "path = shipped_recipe('base')\n"
        "load_recipe(path)\n"
        "print(path, next(embedded_path().glob('*.safetensors')), sep='\\n')\n"
    )
    done = run_python(installed, tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_relative_to(installed) for line in done.stdout.splitlines())


# Versions


def test_the_locked_versions_satisfy_the_project():
    locked = pins("requirements.lock")
    for requirement in requirements(dev=True):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} and {version}"
    assert locked["torch"] == "2.13.0"


def test_the_lock_serves_the_cpu_build_and_the_cuda_build():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"^-|--hash|\+cpu|^nvidia", text, flags=re.MULTILINE)


def test_both_locks_name_the_same_versions():
    locked, gpu = pins("requirements.lock"), pins("requirements-gpu.lock")
    own = {name for name in gpu if re.match(r"nvidia|cuda|triton", name)}
    assert own
    assert {name: version for name, version in gpu.items() if name not in own}.items() <= (
        locked.items()
    )
    assert {canonicalize_name(r.name) for r in requirements(dev=False)} <= set(gpu)


def test_every_file_of_the_gpu_lock_is_known_by_its_hash():
    text = (ROOT / "requirements-gpu.lock").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[a-z0-9])", text.partition("\naccelerate")[2])
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


@pytest.mark.parametrize(
    ("package", "unsafe"), [("torch", "2.9.1"), ("transformers", "5.2.0"), ("datasets", "4.6.0")]
)
def test_releases_with_known_holes_are_refused(package: str, unsafe: str) -> None:
    requirement = next(r for r in requirements(dev=False) if r.name == package)
    assert not requirement.specifier.contains(unsafe)


def test_an_upper_bound_stands_beside_its_reason():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.match(r'\s+"[^"]+,<', line):
            assert lines[number - 1].lstrip().startswith("#"), line


def test_everything_that_is_imported_is_asked_for():
    asked: set[str] = {canonicalize_name(r.name) for r in requirements(dev=False)}
    asked |= {"markupsafe", "pydantic-core"}  # parts of jinja2 and pydantic
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    asked |= {canonicalize_name(Requirement(line).name) for extra in extras for line in extra}
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "rlhfctl").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _absolute_imports(node)
    }
    distributions = packages_distributions()
    for name in imported - set(sys.stdlib_module_names) - {"rlhfctl"}:
        # What an extra brings need not be installed here; then it goes by its own name.
        assert asked & {canonicalize_name(d) for d in distributions.get(name, [name])}, (
            f"{name} is not declared"
        )


def _absolute_imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""] if not node.level else []
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


# The image


def test_the_image_is_pinned_and_does_not_run_as_root():
    assert re.search(r"^ARG CUDA_IMAGE=\S+:\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(stages) == {"${CUDA_IMAGE}", "python", "packages-${DEVICE}"}
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.search(r"^USER 10001:0$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["tini", "--", "rlhfctl"]' in last
    assert "--require-hashes -r /src/requirements-gpu.lock" in DOCKERFILE
    assert "--require-hashes -r /src/requirements-cpu.lock" in DOCKERFILE
    assert (
        'HEALTHCHECK --interval=30m --timeout=2m --start-period=1m CMD ["rlhfctl", "doctor"]'
        in last
    )
    assert not re.search(r"(?i)token|password|secret", re.sub("(?m)^#.*", "", last))


def test_an_index_with_a_password_is_mounted_and_never_an_argument():
    assert not re.search(r"(?im)^(ARG|COPY|LABEL).*(token|password|secret|pip\.conf)", DOCKERFILE)
    installing = re.findall(r"^RUN (?:.*\\\n)*.*", DOCKERFILE, re.MULTILINE)
    online = [step for step in installing if re.search(r"pip (install|wheel)", step)]
    assert len(online) == 4
    for step in online:
        assert "--no-index" in step or "--mount=type=secret,id=pip" in step


def test_the_image_is_built_from_files_that_its_context_has():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for name in line.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


# What is written about it


def test_readme_has_at_most_150_lines_and_links_the_exit_codes():
    assert len(README.splitlines()) <= 150
    assert "(docs/reference/exit-codes.md)" in README
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(str(int(code)), meaning) for code, meaning in EXIT_CODE_MEANINGS.items()]


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
        assert named or page.parent != ROOT
        assert named <= targets, page


def test_the_readme_shows_a_recipe_that_loads(tmp_path: Path) -> None:
    from rlhfctl.recipe.load import load_recipe

    shown = re.search(r"```yaml\n(extends:.+?)```", README, re.DOTALL)
    assert shown
    path = tmp_path / "mine.yaml"
    path.write_text(shown[1], encoding="utf-8")
    assert load_recipe(path).recipe.data.comparisons.source == "data/pairs.jsonl"


def test_the_readme_names_every_recipe():
    named = set(re.findall(r"\(recipes/([\w.-]+\.yaml)\)", README))
    assert named == {path.name for path in (ROOT / "recipes").glob("*.yaml")}


def test_documented_ci_job_is_yaml_and_overrides_a_recipe_key():
    from rlhfctl.recipe.load import load_recipe

    page = (ROOT / "docs" / "how-to" / "docker-and-ci.md").read_text(encoding="utf-8")
    shown = re.search(r"```yaml\n(name: rlhf.+?)```", page, re.DOTALL)
    assert shown
    steps = yaml.safe_load(shown[1])["jobs"]["train"]["steps"]
    override = re.search(r"--set '(.+?)'", " ".join(step.get("run", "") for step in steps))
    assert override
    loaded = load_recipe(ROOT / "recipes" / "base.yaml", [override[1]])
    assert loaded.recipe.evaluation.gates == {"win_rate": ">=0.55"}
    actions = [step["uses"] for step in steps if "uses" in step]
    assert all(re.search(r"@[0-9a-f]{40}$", action) for action in actions)


def test_local_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)(?:#[\w.-]+)?\)", text):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = set(re.findall(r"[\w/.-]+\.md", navigation))
    assert named == {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}


def test_this_version_is_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{__version__}]" in changelog


def test_ci_runs_what_the_readme_calls_the_tests():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert {"make docs", "make test"} <= set(script.splitlines())
    assert script.splitlines()[-1] == "make test"
    assert "make test " in README
