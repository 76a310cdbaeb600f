"""Limits known from a model's config before a weight loads: refused architectures, ends of positions.

`benchmarks/architectures.py` tries both tables on a model of every class in transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.json_text import parse_json
from rlhfctl.models.hub import hub_answers, model_source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rlhfctl.recipe.schema import ModelSection, Recipe

Config = dict[str, Any]
"""Contents of a config.json."""

_PADDING = "counts the padding of prompts as positions, so it samples otherwise than it scores"
_BOTH_SIDES = "reads the tokens on both sides, so no response can be sampled from it"
_STATE = "has a state that padding of prompts changes, so it samples otherwise than it scores"
_OWN_CACHE = "needs a cache of its own kind to sample a batch of prompts"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart"),
            *("git", "pegasus", "plbart"),
        ),
        _PADDING,
    ),
    **dict.fromkeys(
        (
            *("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta"),
            *("xlm-roberta-xl", "xmod"),
        ),
        "starts positions after the pad token in one pass and at 0 in sampling",
    ),
    **dict.fromkeys(
        ("emu3", "mllama"), "has a text model that no class of AutoModelForCausalLM loads"
    ),
    "phimoe": "draws its experts at random in training, with a threshold that is also its noise",
    "prophetnet": "predicts several tokens at once",
    "cpmant": _BOTH_SIDES,
    "xlm": _BOTH_SIDES,
    "xlnet": _BOTH_SIDES,
    "rwkv": _STATE,
    "xlstm": _OWN_CACHE,
    "reformer": _OWN_CACHE,
}
"""Reason by `model_type`."""

ENCODERS = frozenset(
    {
        *("bert", "bert-generation", "big_bird", "electra", "ernie", "megatron-bert", "rembert"),
        *("roc_bert", "roformer"),
    }
)
"""Types that are causal with `is_decoder: true` only."""

ENDING_POSITIONS = ENCODERS | {
    *("biogpt", "codegen", "ctrl", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gptj"),
    *("mpt", "mvp", "openai-gpt", "opt", "trocr", "whisper"),
}
"""Types with a table of positions: beyond its end there is an index error."""

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
NAMED_LAYERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("falcon_h1", "llama4", "llama4_text", "nemotron_h"), _ATTENTION),
    **dict.fromkeys(("falcon_mamba", "mamba"), ("in_proj", "x_proj")),
    "mamba2": ("in_proj",),
    "deepseek_v4": ("gate_proj", "up_proj", "down_proj"),
}
"""Layers that LoRA serves, by type, where not every linear layer is used as one."""

UNQUANTIZABLE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("bert", "big_bird", "ernie", "megatron-bert", "modernbert-decoder", "roc_bert"),
            "roformer",
        ),
        "bitsandbytes would quantise its LM head",
    ),
    "afmoe": "peft cannot adapt its experts beside a quantised router",
    "mamba": "its code reads a weight past its layer",
}
"""Types that do not work on a base of 4 or 8 bits, with the reason."""

_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "n_ctx",
    "max_target_positions",
)
"""Config keys of the number of positions, the first that is present counts."""


@dataclass(frozen=True)
class Positions:
    """Number of positions that a model serves alike.

    Attributes:
        count: Longest sequence in tokens.
        kind: `table`: there are no more. `switching`: longer ones change the frequencies of every
            position, by the width of the batch. `trained`: longer ones were not trained on.
        name: What ends there, for messages.
    """

    count: int
    kind: str
    name: str


def read_config(section: ModelSection, *, fetch: bool = False) -> Config | None:
    """Return the config of a recipe's model; None if it is not at hand.

    Args:
        section: The model.
        fetch: Whether a Hub model's config may be downloaded; otherwise only the cache is read.

    Raises:
        EnvironmentFault: The path is not a model folder, or the Hub does not answer.
        UnsafeError: Its config would run code and the recipe does not allow it.
        CheckpointError: A config of its folder is damaged.
    """
    path = config_path(section, model_source(section), fetch=fetch)
    try:
        config = parse_json(path.read_bytes()) if path else None
    except (OSError, ValueError):
        return None  # The loader says what is wrong with it.
    return config if isinstance(config, dict) else None


def config_path(section: ModelSection, source: str, *, fetch: bool = False) -> Path | None:
    """Return the model's config.json: in its folder, or in the Hub's cache; None if in neither.

    Args:
        section: The model.
        source: Its folder or Hub id.
        fetch: Whether a Hub model's config may be downloaded.

    Raises:
        EnvironmentFault: It may, it is not in the cache, and the Hub does not answer.
    """
    if Path(source).is_dir():
        return Path(source) / "config.json"
    cached = _hub_config(source, section.revision, fetch=fetch)
    return Path(cached) if cached else None


def _hub_config(name: str, revision: str | None, *, fetch: bool) -> str | None:
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if not fetch:
            return cached if isinstance(cached, str) else None
        if not isinstance(cached, str):
            # One request, since a download without an answer is tried again for half a minute.
            with hub_answers(name):
                get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision))
        return hf_hub_download(name, "config.json", revision=revision)
    except (OSError, ValueError, HfHubHTTPError, HFValidationError):
        return None  # Offline, or no such model: again, the loader says so.


def refusal(config: Config) -> str | None:
    """Return why PPO cannot use an architecture, as the end of a sentence; None if it can."""
    model_type = str(config.get("model_type"))
    if model_type in REFUSED:
        return REFUSED[model_type]
    if model_type in ENCODERS and not config.get("is_decoder"):
        return f"{_BOTH_SIDES} (its config has no is_decoder: true)"
    if config.get("is_encoder_decoder"):
        return "is an encoder-decoder, and roles share a decoder-only language model"
    return None


def positions(config: Config) -> Positions | None:
    """Return where positions end, by the config alone; None if it does not say."""
    text = config.get("text_config")
    text = text if isinstance(text, dict) else config
    model_type = str(text.get("model_type", config.get("model_type")))
    counts = [text[name] for name in _POSITIONS if isinstance(text.get(name), int)]
    if model_type in ENDING_POSITIONS and counts:
        return Positions(counts[0], "table", "positions")
    switching = [
        Positions(int(limit), "switching", f"{kind} RoPE")
        for kind, limit in _switches(text, counts)
    ]
    if switching:
        return min(switching, key=lambda limit: limit.count)
    if not counts:
        return None
    stretched = [
        float(rope.get("factor") or 1.0) * float(rope["original_max_position_embeddings"])
        for rope in _ropes(text)
        if rope.get("original_max_position_embeddings")
    ]
    return Positions(max(counts[0], *map(int, stretched), 0), "trained", "positions")


def _ropes(text: Config) -> Iterator[Config]:
    """Yield the settings of RoPE: one for all layers, or one per type of layer."""
    for name in ("rope_scaling", "rope_parameters"):
        rope = text.get(name)
        if isinstance(rope, dict):
            inner = [value for value in rope.values() if isinstance(value, dict)]
            yield from inner or [rope]


def _switches(text: Config, counts: list[int]) -> Iterator[tuple[str, int]]:
    """Yield kind and length at which frequencies come to depend on the longest row of a batch.

    transformers' `dynamic_rope_update` reads it off the positions of the whole batch. YaRN, Llama
    3's and linear scaling are the same at every length.
    """
    for rope in _ropes(text):
        kind = str(rope.get("rope_type", rope.get("type", "default")))
        if kind == "dynamic" and counts:
            yield "dynamic", counts[0]
        elif kind in {"longrope", "su"}:
            original = rope.get(
                "original_max_position_embeddings", text.get("original_max_position_embeddings")
            )
            limits = [original] if isinstance(original, int) else counts[:1]
            yield from (("longrope", limit) for limit in limits)


def require_fit(recipe: Recipe, config: Config, stages: Collection[str]) -> Iterator[str]:
    """Check that PPO can use a recipe's model, and that sequences are within its positions.

    Args:
        recipe: Model and lengths.
        config: Config of the model.
        stages: Names of the stages that will run.

    Yields:
        A sentence per length beyond the positions that the model was trained on.

    Raises:
        EnvironmentFault: The architecture is refused.
        RecipeError: Sequences may be longer than the positions reach, or the architecture cannot be
            adapted or quantised as the recipe says.
    """
    where = f"model.name_or_path: {recipe.model.name_or_path}"
    reason = refusal(config)
    if reason is not None:
        raise EnvironmentFault(
            f"the architecture {config.get('model_type')} {reason}",
            where,
            "Use a decoder-only causal language model; docs/reference/models.md lists them.",
        )
    _require_mode(recipe, str(config.get("model_type")))
    limit = positions(config)
    longer = [entry for entry in _lengths(recipe, stages) if limit and entry[1] > limit.count]
    if limit is None or not longer:
        return
    listed = ", ".join(f"{key} ({length:,})" for key, length in longer)
    if limit.kind == "trained":
        if recipe.model.name_or_path != "embedded":
            yield f"{listed} exceeds the {limit.count:,} positions that the model was trained on"
        return
    reached = (
        f"the model has {limit.count:,} positions"
        if limit.kind == "table"
        else f"with {limit.name} the widest row of a batch changes every other row's log-probabilities "
        f"beyond {limit.count:,} tokens"
    )
    raise RecipeError(
        f"{reached}, and {listed} may reach beyond",
        where,
        f"Lower {'each' if len(longer) > 1 else 'it'} to {limit.count:,} at most.",
    )


def _require_mode(recipe: Recipe, model_type: str) -> None:
    lora = recipe.lora
    if lora is not None and lora.target_modules == "all-linear" and model_type in NAMED_LAYERS:
        raise RecipeError(
            f"LoRA on every linear layer of {model_type} does not work: some of them are not used as "
            "plain linear layers",
            "lora.target_modules",
            f"Name layers, such as lora.target_modules: [{', '.join(NAMED_LAYERS[model_type])}].",
        )
    if recipe.model.quantization != "none" and model_type in UNQUANTIZABLE:
        raise RecipeError(
            f"{model_type} cannot be quantised: {UNQUANTIZABLE[model_type]}",
            "model.quantization",
            "Set model.quantization: none, or use another model.",
        )


def _lengths(recipe: Recipe, stages: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield the recipe's keys and longest sequences of the stages, in tokens."""
    sampling = recipe.generation
    if "sft" in stages:
        yield "sft.max_length", recipe.sft.max_length
    if "rm" in stages:
        yield "reward_model.max_length", recipe.reward_model.max_length
    if "dpo" in stages:
        yield "dpo.max_length", recipe.dpo.max_length
    if set(stages) - {"sft", "dpo"}:
        longest = sampling.max_prompt_length + sampling.max_new_tokens
        yield "generation.max_prompt_length + generation.max_new_tokens", longest
