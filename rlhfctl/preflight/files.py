"""Checks of the files a recipe refers to, without weights or network access."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import CheckpointError, DataError, EnvironmentFault, RecipeError
from rlhfctl.models.foreign_files import ForeignFiles, is_foreign
from rlhfctl.preflight.data import check_data, check_reward_bench, level_of
from rlhfctl.preflight.finding import Finding
from rlhfctl.preflight.libraries import check_architecture, check_packages, local_folder
from rlhfctl.recipe.permissions import allows_code, allows_remote_code, is_own
from rlhfctl.recipe.template_date import CLOCK, DATE, changes_by_day
from rlhfctl.recipe.user_code import user_code
from rlhfctl.run.extras import require_harness
from rlhfctl.stage_table import PPO, STAGE_NAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rlhfctl.data.formatter import Formatter
    from rlhfctl.data.forms import Kind
    from rlhfctl.data.sources import Preview
    from rlhfctl.recipe.reward_sources import RewardModelLoading
    from rlhfctl.recipe.schema import ModelSection, Recipe
    from rlhfctl.stage_table import Stage

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


def check_files(recipe: Recipe, *, fetch: bool = False) -> list[Finding]:
    """Check every local file of a recipe and the first rows of its data sets.

    Args:
        recipe: The recipe.
        fetch: Whether the config of a Hub model may be downloaded, to check it too.

    Raises:
        EnvironmentFault: The model is a local folder without a model, its architecture is refused,
            or the recipe needs an extra that is not installed.
        RecipeError: The chat template cannot be read, a column mapping is wrong, sequences are
            longer than the model's positions, or it has no modules of the adapters' names.
        UnsafeError: A data set is a script, or the model's config needs custom code.
    """
    model = [*_model(recipe.model), *check_model(recipe, fetch=fetch)]
    previews: dict[Kind, Preview] = {}
    data = list(check_data(recipe, previews))
    prompts = previews.get("prompts")
    return [
        *model,
        *check_packages(recipe),
        *_checkpoints(recipe, conversations=prompts is not None and prompts.messages is True),
        *_functions(recipe),
        *_server_keys(recipe),
        *_tax(recipe),
        *data,
        *_tokens(recipe, previews),
        *check_reward_bench(recipe),
    ]


def check_stage_data(recipe: Recipe, stage: Stage) -> list[Finding]:
    """Check the first rows of the data sets that one stage reads.

    Raises:
        RecipeError: A column mapping or a preset is wrong.
        UnsafeError: A data set is a script.
    """
    kinds = stage.data
    if stage == PPO and recipe.ppo.ptx_coefficient:
        kinds += ("demonstrations",)
    return list(check_data(recipe, {}, kinds))


def _model(section: ModelSection) -> Iterator[Finding]:
    from rlhfctl.models.hub import model_source

    name, source = section.name_or_path, model_source(section)
    if Path(source).is_dir():
        yield Finding("ok", f"{name}: local model", "model.name_or_path")
    elif local_folder(section) is not None:
        yield Finding("ok", f"{name}: config in the Hub's cache", "model.name_or_path")
    else:
        yield Finding("not checked", f"{name}: on the Hub", "model.name_or_path")
    template, where = section.chat_template, "model.chat_template"
    if template is not None and (Path(template).suffix or Path(template).is_file()):
        _check_template(template, where)
        yield Finding("ok", f"{template}: a chat template", where)
    elif template is not None and local_folder(section) is None:
        yield Finding("not checked", f"{template}: a template of a tokenizer on the Hub", where)
    if section.trust_remote_code:
        allowed = "will run" if allows_remote_code() else "runs with --allow-remote-code only"
        yield Finding(
            "warning",
            f"code of {name} at revision {section.revision} {allowed}",
            "model.trust_remote_code",
        )


def check_model(
    recipe: Recipe, stages: Collection[str] = STAGE_NAMES, *, fetch: bool = False
) -> list[Finding]:
    """Check by a model's config that PPO can use it at the recipe's lengths.

    Args:
        recipe: The recipe.
        stages: Names of the stages that will run.
        fetch: Whether the config of a Hub model may be downloaded.

    Raises:
        EnvironmentFault: The model is refused, or no model.
        RecipeError: Sequences are longer than its positions, it has no modules of the adapters'
            names, or not the attention implementation.
        UnsafeError: Its config needs custom code.
    """
    from rlhfctl.models.architecture import read_config, require_fit

    config = read_config(recipe.model, fetch=fetch)
    warnings = [] if config is None else require_fit(recipe, config, stages)
    return [
        *(Finding("warning", warning, "model.name_or_path") for warning in warnings),
        *check_architecture(recipe),
    ]


def _check_template(name: str, key: str) -> None:
    where = f"{key}: {name}"
    try:
        text = Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError("the chat template is not UTF-8 text", where) from error
    except OSError as error:
        raise RecipeError(f"the chat template cannot be read: {error.strerror}", where) from error
    if "messages" not in text:
        raise RecipeError("the file is no chat template: it does not use `messages`", where)


def _checkpoints(recipe: Recipe, *, conversations: bool) -> Iterator[Finding]:
    """Check the folders and reward models that the recipe names.

    Args:
        recipe: The recipe.
        conversations: Whether the prompts are known to be conversations.
    """
    named = {
        "sft.init_from": recipe.sft.init_from,
        "reward_model.sft": recipe.reward_model.sft,
        "ppo.sft": recipe.ppo.sft,
        "ppo.rm": recipe.ppo.rm,
        "evaluation.sft": recipe.evaluation.sft,
        "evaluation.rm": recipe.evaluation.rm,
        "evaluation.ppo": recipe.evaluation.ppo,
    }
    for where, name in named.items():
        if name is not None:
            yield _folder(name, where)
    for where, (source, loading) in _reward_models(recipe).items():
        if is_foreign(source):
            yield from _foreign(recipe, source, loading, where, conversations=conversations)
        else:
            yield _folder(source, where)


def _folder(name: str, where: str) -> Finding:
    if not Path(name).is_dir():
        return Finding("warning", f"there is no folder {name} (yet)", where)
    return Finding("ok", f"checkpoint {name}", where)


def _reward_models(recipe: Recipe) -> dict[str, tuple[str, RewardModelLoading]]:
    """Return the reward models that the recipe names as a folder or on the Hub, by key."""
    named: dict[str, tuple[str, RewardModelLoading]] = {
        f"ppo.reward_sources.{index}": (source.source, source)
        for index, source in enumerate(recipe.ppo.reward_sources)
        if source.kind in {"folder", "hub"}
    }
    evaluation = recipe.evaluation
    if evaluation.judge_rm is not None:
        named["evaluation.judge_rm"] = (evaluation.judge_rm, evaluation.judge_rm_loading)
    return named


def _foreign(
    recipe: Recipe, source: str, loading: RewardModelLoading, where: str, *, conversations: bool
) -> Iterator[Finding]:
    """Check a reward model from elsewhere by its files; one on the Hub if it is in the cache."""
    if loading.chat_template is not None:
        _check_template(loading.chat_template, f"{where}.chat_template")
    try:
        files = ForeignFiles.find(source, loading, where, offline=True)
    except EnvironmentFault:
        yield Finding("not checked", f"{source}: on the Hub", where)
        return
    except CheckpointError as error:
        yield Finding("error", f"{source} {error.what}", where, error.hint)
        return
    chat = loading.input_format != "text" and (files.has_template or bool(loading.chat_template))
    if not chat and conversations:
        yield Finding(
            "error",
            f"{source} reads plain text (it has no chat template), and the prompts are "
            "conversations",
            where,
            "give its template with chat_template, or name another reward model",
        )
        return
    limit = loading.max_length or files.limit
    longest = recipe.generation.max_prompt_length + recipe.generation.max_new_tokens
    if limit is not None and longest > limit:
        yield Finding(
            "warning",
            f"prompts and responses may have {longest:,} tokens, and {source} takes {limit:,}: "
            "longer ones are scored without the beginning of their prompt",
            where,
        )
    form = "chat template" if chat else "plain text"
    size = f", weights of {files.weight_bytes / 1e9:.2g} GB" if files.weight_bytes else ""
    yield Finding("ok", f"{source}: reward model with one output, {form}{size}", where)


def _functions(recipe: Recipe) -> Iterator[Finding]:
    """Find the functions' modules, also in the working folder, without importing them."""
    for code in user_code(recipe):
        if not is_own(code.name):
            allowed = "will run" if allows_code() else "runs with --allow-code only"
            yield Finding("warning", f"the {code.kind} {code.name} {allowed}", code.key)
        if code.is_file:
            continue
        package = code.name.partition(":")[0].split(".")[0]
        if importlib.util.find_spec(package) or importlib.machinery.PathFinder.find_spec(
            package, [str(Path.cwd())]
        ):
            what = f"{code.kind} {code.name}: its module is there"
            yield Finding("ok", what, code.key)
        else:
            yield Finding(
                "error",
                f"there is no module {package} for the {code.kind} {code.name}",
                code.key,
                "put it in the working folder or install it",
            )


def _tax(recipe: Recipe) -> Iterator[Finding]:
    where = "evaluation.tax.tasks"
    tasks = recipe.evaluation.tax.tasks
    require_harness(tasks)
    for task in tasks:
        if task.endswith((".yaml", ".yml")) and not Path(task).is_file():
            yield Finding("error", f"there is no task file {task}", where, "fix the path")
        elif task.endswith((".yaml", ".yml")):
            yield Finding("ok", f"task file {task}", where)
        else:
            what = f"task {task}: the harness finds it when the evaluation starts"
            yield Finding("not checked", what, where)


def _server_keys(recipe: Recipe) -> Iterator[Finding]:
    """Check that the keys of servers are set, without reading their values into messages."""
    variables = {
        f"ppo.reward_sources.{index}.api_key_env": source.api_key_env
        for index, source in enumerate(recipe.ppo.reward_sources)
    }
    if recipe.ppo.engine == "vllm":
        variables["ppo.vllm.api_key_env"] = recipe.ppo.vllm.api_key_env
    if recipe.evaluation.judge_endpoint is not None:
        judge = recipe.evaluation.judge_endpoint
        variables["evaluation.judge_endpoint.api_key_env"] = judge.api_key_env
    for where, variable in variables.items():
        if variable is None:
            continue
        if os.environ.get(variable, "").strip():
            yield Finding("ok", f"{variable} is set", where)
        else:
            yield Finding(
                "error",
                f"the environment variable {variable} is not set",
                where,
                "set it to the server's key, or leave api_key_env out",
                "environment",
            )


def _tokens(recipe: Recipe, previews: dict[Kind, Preview]) -> Iterator[Finding]:
    """Check a tokenizer on this machine, and encode the first rows of files as the stages will.

    The shipped tokenizer as it is, with rows of its world, needs no check: transformers is not
    imported.
    """
    files = any(seen.rows for seen in previews.values())
    if not (files or _sets_tokens(recipe)):
        return
    where = "model.name_or_path"
    if recipe.model.trust_remote_code and not allows_remote_code():
        yield Finding("not checked", "tokenizer and chat template: the model has own code", where)
        return
    folder = local_folder(recipe.model)
    if folder is None or not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        yield Finding("not checked", "tokenizer and chat template: on the Hub", where)
        return
    update = {"name_or_path": str(folder), "revision": None}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=update)})
    from rlhfctl.data.formatter import Formatter, stop_ids
    from rlhfctl.models.padding import choose_padding
    from rlhfctl.models.tokenizer import read_tokenizer

    formatter = Formatter(read_tokenizer(recipe.model), recipe.model.chat_template_kwargs)
    has = "with a chat template" if formatter.template.source else "without a chat template"
    yield Finding("ok", f"tokenizer of {len(formatter.tokenizer):,} tokens, {has}", where)
    stops = stop_ids(formatter, recipe.generation.stop_tokens)
    padding = choose_padding(formatter.tokenizer, stops)
    if padding.is_shared:
        what = f"no spare token to pad with: exported tokenizers keep {padding.exported}"
        yield Finding("ok", what, "model.pad_token")
    unused = [
        name for name in recipe.model.chat_template_kwargs if name not in formatter.template.source
    ]
    if changes_by_day(formatter.template.source):
        what = f"the chat template computes the format of its {CLOCK}: prompts change with the day"
        yield Finding("warning", what, "model.chat_template")
    elif CLOCK in formatter.template.source:
        day = recipe.model.chat_template_kwargs.get(CLOCK, DATE)
        what = f"the chat template writes a date: {day} in every stage, whatever the day"
        yield Finding("ok", what, "model.chat_template_kwargs")
    if unused:
        what = f"the chat template does not use {', '.join(unused)}"
        yield Finding("warning", what, "model.chat_template_kwargs")
    for kind, seen in previews.items():
        if seen.rows:
            yield from _encoding(recipe, formatter, kind, seen)


def _sets_tokens(recipe: Recipe) -> bool:
    """Return whether the tokenizer, or a key about it, is not the shipped one."""
    model, default = recipe.model, type(recipe.model)()
    keys = ("name_or_path", "chat_template", "chat_template_kwargs", "pad_token")
    changed = any(getattr(model, key) != getattr(default, key) for key in keys)
    return changed or bool(recipe.generation.stop_tokens)


def _encoding(recipe: Recipe, formatter: Formatter, kind: Kind, seen: Preview) -> Iterator[Finding]:
    from datasets import Dataset

    from rlhfctl.data.formatting import encode_comparisons, encode_demonstrations, encode_prompts
    from rlhfctl.data.row_counts import bad_limit

    rows = Dataset.from_list(list(seen.rows))
    parse = getattr(recipe.data, kind).special_tokens == "parse"
    formatter = replace(formatter, parse_special=parse)
    try:
        if kind == "demonstrations":
            turns = recipe.sft.assistant_turns
            length = recipe.sft.max_length
            report = encode_demonstrations(rows, formatter, length, assistant_turns=turns).report
        elif kind == "comparisons":
            length = recipe.reward_model.max_length
            report = encode_comparisons(rows, formatter, length).report
        else:
            length = recipe.generation.max_prompt_length
            report = encode_prompts(rows, formatter, length).report
    except DataError as error:
        yield Finding("error", error.what, f"data.{kind}", error.hint)
        return
    if report.dropped:
        yield Finding(level_of(report, bad_limit(recipe.data)), report.summary(), f"data.{kind}")
    for remark in report.remarks():
        yield Finding("warning", remark, f"data.{kind}")
