"""Reward sources: the `ppo.reward_sources` list, and loading of reward models from elsewhere."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhfctl.recipe.addresses import address_fault, authorization, variable_fault
from rlhfctl.recipe.base import Count, Natural, Positive, Section

RUN_RM = "rm"
"""Reward source that stands for the reward model of `ppo.rm`, or else the run's own."""


HUB = "hub:"
"""Prefix of a reward model on the Hub."""
Kind = Literal["rm", "folder", "hub", "function", "server"]


def source_kind(source: str) -> Kind:
    """Return the kind of a reward source from its form; ``./a:b`` is a folder."""
    if source == RUN_RM:
        return "rm"
    if source.startswith(HUB):
        return "hub"
    if source.startswith(("http://", "https://")):
        return "server"
    module, colon, function = source.partition(":")
    if colon and function.isidentifier() and all(map(str.isidentifier, module.split("."))):
        return "function"
    return "folder"


def source_file(source: str) -> str | None:
    """Return the local folder or module file behind a reward source, or None.

    A function's module is a file in the working folder if there is one, else a package.
    """
    kind = source_kind(source)
    if kind == "function":
        return source.partition(":")[0].replace(".", "/") + ".py"
    return source if kind == "folder" else None


class RewardModelLoading(Section):
    """Loading of a reward model from elsewhere, which has its own base, tokenizer and template."""

    revision: str | None = Field(
        None,
        description="Branch, tag or commit of a reward model on the Hub; null uses its default "
        "branch.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Data type of its weights; `auto` is bfloat16 on CUDA and float32 on CPU.",
    )
    quantization: Literal["none", "4bit", "8bit", "auto"] = Field(
        "none",
        description="Quantization of its weights by bitsandbytes, as in `model.quantization`.",
    )
    input_format: Literal["auto", "chat", "text"] = Field(
        "auto",
        description="Form of its input. `chat`: messages in its chat template. `text`: the prompt's "
        "text followed by the response. `auto`: `chat` if it has a template.",
    )
    chat_template: str | None = Field(
        None, description="Path of a Jinja chat template; null uses its tokenizer's own."
    )
    append_eos: bool = Field(
        True,
        description="End each input of `input_format: text` with the tokenizer's EOS token, if it "
        "has one.",
    )
    max_length: Count | None = Field(
        None,
        description="Longest input in tokens; longer ones lose the beginning of the prompt, and are "
        "counted. null uses the model's own limit.",
    )
    batch_size: Count = Field(16, description="Inputs per forward pass.")


_FUNCTION_KEYS = ("columns", "completions", "timeout_seconds")
_FOREIGN_KEYS = ("normalization", *RewardModelLoading.model_fields)


class RewardSourceSection(RewardModelLoading):
    """One source of scores."""

    source: str = Field(
        RUN_RM,
        min_length=1,
        description="`rm` (the run's reward model), a reward-model folder, `hub:ID` (a reward model "
        "on the Hub), a Python `module:function`, or an http(s) address.",
    )
    weight: float = Field(
        1.0, description="Weight in `reward_rule: weighted_sum`; may be negative, but not 0."
    )
    columns: list[str] | None = Field(
        None,
        description="Columns of `data.prompts` that a function or server receives; null: those that "
        "the function accepts, all for a server.",
    )
    completions: Literal["text", "messages"] = Field(
        "text",
        description="Form of the responses that a function or server receives. `messages`: those to "
        "conversations are lists of one message, as TRL gives them.",
    )
    timeout: Positive = Field(
        60.0,
        description="Longest time of one request to an http server in seconds, from the connection to the "
        "last byte, before a retry.",
    )
    api_key_env: str | None = Field(
        None,
        description="Name of the environment variable that holds the key of an http server, sent as "
        "a bearer token; null sends none. The key itself is never written to any file.",
    )
    retries: Natural = Field(3, description="Retries after a failed request to an http server.")
    timeout_seconds: Positive | None = Field(
        None,
        description="Longest time of one call of a function or server, retries included; exceeding "
        "it ends the stage with exit code 3. null sets no limit.",
    )
    normalization: Literal["sft", "none"] = Field(
        "sft",
        description="Scale of the scores of a reward model from elsewhere: mean 0 and standard "
        "deviation 1 over SFT responses, or `none`.",
    )

    @property
    def kind(self) -> Kind:
        """Kind of the source, from its form."""
        return source_kind(self.source)

    @model_validator(mode="after")
    def _without_secrets(self) -> Self:
        fault = variable_fault(self.api_key_env)
        if self.kind == "server":
            fault = fault or address_fault(self.source, "source")
        if fault:
            raise ValueError(fault)
        return self

    def authorization(self, where: str) -> dict[str, str]:
        """Return the headers with the server's key; see `addresses.authorization`."""
        return authorization(self.api_key_env, where)

    @model_validator(mode="after")
    def _fitting_keys(self) -> Self:
        kinds: dict[str, tuple[Kind, ...]] = {
            **dict.fromkeys(_FUNCTION_KEYS, ("function", "server")),
            **dict.fromkeys(_FOREIGN_KEYS, ("hub", "folder")),
            "api_key_env": ("server",),
        }
        fields = type(self).model_fields
        unfit = [
            name
            for name, fitting in kinds.items()
            if self.kind not in fitting and getattr(self, name) != fields[name].default
        ]
        if unfit:
            raise ValueError(
                f"{', '.join(unfit)} cannot be set for the reward source {self.source}, "
                f"which is a {self.kind}; remove the key"
            )
        return self
