"""Conversions of values, by the names that the tables of keys use."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from rlhfctl.recipe.dpo import DPOSection
from rlhfctl.recipe.library_names import ATTENTIONS, TRACKER_PACKAGES, Optimizer
from rlhfctl.recipe.ppo import PPOSection
from rlhfctl.stage_table import PPO, REWARD_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rlhfctl.stage_table import Stage


class NotCarriedError(Exception):
    """A value that has no counterpart; the text is the reason."""


class OffError(Exception):
    """A value that changes nothing; the text is the reason."""


@dataclass(frozen=True)
class Context:
    """The file that a value is from.

    Attributes:
        stage: Its stage.
        values: Its keys.
        defaults: The tool's values for keys that it lacks.
    """

    stage: Stage
    values: Mapping[str, Any]
    defaults: Mapping[str, Any]

    @property
    def is_ppo(self) -> bool:
        """True for a file of PPO."""
        return self.stage == PPO

    def get(self, key: str) -> Any:
        """Return the value of a key, or the tool's default."""
        value = self.values.get(key)
        return self.defaults.get(key) if value is None else value

    def minibatch(self) -> int:
        """Return the rows per optimizer step of one process."""
        rows = _whole(self.get("per_device_train_batch_size"))
        return rows * _whole(self.get("gradient_accumulation_steps"))

    def rollout(self) -> int:
        """Return the episodes per rollout of one process."""
        return self.minibatch() * _whole(self.get("ppo_buffer_size"))

    def episodes(self) -> int | None:
        """Return the episodes of a PPO run; None where they depend on the number of rows."""
        steps = self.get("max_steps")
        if isinstance(steps, int) and steps > 0:
            return steps * self.rollout()
        rows, names = self.get("max_samples"), self.get("dataset")
        if not isinstance(rows, int) or not names:
            return None
        sources = names.split(",") if isinstance(names, str) else names
        passes = _number(self.get("num_train_epochs"))
        return max(math.ceil(passes * rows * len(sources)), self.rollout())


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise NotCarriedError(f"{value} is not a whole number above 0")


def _number(value: Any) -> float:
    """Return a number, also of text: YAML 1.1 reads ``1e-5`` as text."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise NotCarriedError(f"{value} is not a number") from error


def _bits(value: Any, _: Context) -> str:
    if value in (4, 8):
        return f"{value}bit"
    raise NotCarriedError("bases are quantized to 4 or 8 bits")


def _if_true(name: object) -> Callable[[Any, Context], object]:
    def convert(value: Any, _: Context) -> object:
        if value == "auto":
            raise OffError("auto, as in rlhfctl")
        if not value:
            raise OffError("off")
        return name

    return convert


_FLASH = (
    "speed only: set model.attn_implementation to flash_attention_2 where flash-attn is installed"
)


def _flash(value: Any, _: Context) -> object:
    raise OffError(_FLASH if value else "off")


def _attention(value: Any, _: Context) -> str:
    if value == "auto":
        raise OffError("transformers' default, as in rlhfctl")
    if value == "disabled":
        return "eager"
    if str(value).startswith(("fa", "flash")):
        raise OffError(_FLASH)
    if value in ATTENTIONS:
        return str(value)
    raise NotCarriedError(f"speed only: there is no attention implementation {value}")


def _modules(value: Any, _: Context) -> str | list[str]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise NotCarriedError(f"{value} is no list of modules")
    names = [str(name).strip() for name in names]
    return "all-linear" if set(names) & {"all", "all-linear", "all_linear"} else names


def _revision(value: Any, _: Context) -> str:
    if value == "main":
        raise OffError("the default branch, as in rlhfctl")
    return str(value)


def _remote_code(value: Any, context: Context) -> bool:
    if not value:
        raise OffError("off")
    revision = context.get("model_revision") or context.get("revision_of_model")
    if re.fullmatch(r"[0-9a-f]{40}", str(revision)):
        return True
    raise NotCarriedError(
        "needs model.revision, a commit, and --allow-remote-code; most models need no code of theirs"
    )


def _schedule(value: Any, context: Context) -> str:
    name = {"constant_with_warmup": "constant"}.get(value, str(value))
    if context.is_ppo:
        if name in ("linear", "constant"):
            return name
        raise NotCarriedError(f"PPO has linear and constant, not {name}; linear is used")
    if name in ("linear", "cosine", "constant"):
        return name
    raise NotCarriedError(f"there is no schedule {name}; set lr_scheduler_type")


def _least_rate(value: Any, _: Context) -> str:
    if value == 0.1:
        return "cosine_with_min_lr"
    raise NotCarriedError("cosine_with_min_lr ends at 0.1 of the peak, and no other share")


def _epochs(value: Any, context: Context) -> float | int:
    if not context.is_ppo:
        return _number(value)
    episodes = context.episodes()
    if episodes is None:
        raise NotCarriedError(
            "passes over an unknown number of prompts: set ppo.episodes to passes times prompts"
        )
    return episodes


def _steps(value: Any, context: Context) -> int:
    if not isinstance(value, int) or value <= 0:
        raise OffError("off")
    if context.is_ppo:
        return value * context.rollout()
    raise NotCarriedError("rlhfctl counts passes over the rows: set num_train_epochs instead")


def _accumulation(value: Any, context: Context) -> int:
    return context.minibatch() if context.is_ppo else _whole(value)


def _warmup_share(value: Any, context: Context) -> float | int:
    share = _number(value)
    if not context.is_ppo:
        return share
    episodes = context.episodes()
    if share == 0.0:
        return 0
    if episodes is None:
        raise NotCarriedError(
            "a share of an unknown number of rollouts: set ppo.warmup_rollouts (10 by default)"
        )
    return round(share * math.ceil(episodes / context.rollout()))


def _warmup_steps(value: Any, context: Context) -> float | int:
    steps = _number(value)
    if context.is_ppo:
        return _warmup_share(steps, context) if steps < 1.0 else int(steps)
    if steps < 1.0:
        return steps
    raise NotCarriedError(
        "a number of steps: set warmup_ratio to its share of the steps that rlhfctl plan prints"
    )


_OPTIMIZERS = get_args(Optimizer)
_PPO_OPTIMIZERS = get_args(PPOSection.model_fields["optim"].annotation)
_SYNONYMS = {"adamw_hf": "adamw_torch", "paged_adamw": "paged_adamw_32bit"}


def _optimizer(value: Any, context: Context) -> str:
    name = _SYNONYMS.get(str(value), str(value))
    if context.is_ppo and name == "adamw_bnb_8bit":
        name = "adamw_8bit"
    names = _PPO_OPTIMIZERS if context.is_ppo else _OPTIMIZERS
    if name in names:
        return name
    raise NotCarriedError(f"there is no optimizer {name}; adamw_torch is used")


_USUAL_ADAM = (0.9, 0.999, 1e-8)


def _adam(value: Any, context: Context) -> float:
    if context.is_ppo:
        return _number(value)
    if _number(value) in _USUAL_ADAM:
        raise OffError("the usual value, which rlhfctl has too")
    raise NotCarriedError("Adam's usual constants (0.9, 0.999, 1e-8) are used")


def _count(value: Any, _: Context) -> int:
    if isinstance(value, float) and 0.0 < value < 1.0:
        raise NotCarriedError("a share of the steps; rlhfctl counts steps")
    return _whole(int(value) if isinstance(value, float) else value)


def _trackers(value: Any, _: Context) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not names or names == ["none"]:
        raise OffError("no tracker")
    unknown = [name for name in names if name not in TRACKER_PACKAGES]
    if unknown:
        raise NotCarriedError(
            f"there is no tracker {', '.join(unknown)}; there are {', '.join(TRACKER_PACKAGES)}"
        )
    return list(names)


def _score_norm(value: Any, _: Context) -> str:
    if value:
        return "running"
    raise NotCarriedError(
        "rlhfctl normalises scores by those of the SFT policy, so beta acts on another scale"
    )


def _template_name(value: Any, _: Context) -> str:
    if value == "tokenizer_default":
        raise OffError("the tokenizer's own, as in rlhfctl")
    if value == "jinja":
        raise OffError("chat_template_jinja has it")
    raise NotCarriedError(
        f"the tokenizer's own chat template is used, not axolotl's {value}; "
        "compare the rows of rlhfctl data show"
    )


def _template_file(value: Any, _: Context) -> str:
    if isinstance(value, str) and re.fullmatch(r"[^\n{]+\.(jinja2?|j2)", value):
        return value
    raise NotCarriedError("save the template as a .jinja file, and name it in model.chat_template")


def _only_reward_model(value: Any, context: Context) -> float:
    if context.stage == REWARD_MODEL:
        return _number(value)
    raise NotCarriedError("only the reward model reads it")


def _group_by_length(value: Any, _: Context) -> bool:
    return bool(value == "group_by_length")


def _at_least_two(value: Any, _: Context) -> int:
    return max(2, _whole(value))


def _preference_loss(value: Any, _: Context) -> str:
    losses = get_args(DPOSection.model_fields["loss_type"].annotation)
    if value in losses:
        return str(value)
    raise NotCarriedError(f"DPO has the losses {', '.join(losses)}, not {value}; sigmoid is used")


CONVERSIONS: dict[str, Callable[[Any, Context], object]] = {
    "accumulation": _accumulation,
    "adam": _adam,
    "all_linear": _if_true("all-linear"),
    "at_least_two": _at_least_two,
    "attention": _attention,
    "bfloat16": _if_true("bfloat16"),
    "bits": _bits,
    "checkpointing": lambda value, _: bool(value),
    "count": _count,
    "eager": _if_true("eager"),
    "eight_bits": _if_true("8bit"),
    "epochs": _epochs,
    "flash": _flash,
    "flex": _if_true("flex_attention"),
    "float16": _if_true("float16"),
    "float32": _if_true("float32"),
    "four_bits": _if_true("4bit"),
    "last_turn": lambda value, _: "last" if value else "all",
    "least_rate": _least_rate,
    "modules": _modules,
    "negated": lambda value, _: not value,
    "number": lambda value, _: _number(value),
    "only_reward_model": _only_reward_model,
    "optimizer": _optimizer,
    "preference_loss": _preference_loss,
    "remote_code": _remote_code,
    "revision": _revision,
    "sampling_strategy": _group_by_length,
    "schedule": _schedule,
    "score_norm": _score_norm,
    "sdpa": _if_true("sdpa"),
    "steps": _steps,
    "template_file": _template_file,
    "template_name": _template_name,
    "thinking": lambda value, _: {"enable_thinking": value},
    "trackers": _trackers,
    "warmup_share": _warmup_share,
    "warmup_steps": _warmup_steps,
}
