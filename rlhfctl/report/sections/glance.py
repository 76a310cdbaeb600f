"""The run at a glance: model, data, algorithm, and where it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.blocks import FactGroup, FactGroups
from rlhfctl.report.numbers import MISSING, duration, number, scientific, size_of
from rlhfctl.report.sections.cost import peak_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.json_value import JsonValue

    Row = tuple[str, str]

_DATA = ("demonstrations", "comparisons", "prompts")


@dataclass(frozen=True)
class _Settings:
    """Recipe values of the finished stages by dotted key."""

    values: dict[str, JsonValue]

    def text(self, key: str) -> str:
        """Return a value as text; empty if it is missing or null."""
        value = self.values.get(key)
        if isinstance(value, list):
            return ", ".join(map(str, value))
        if isinstance(value, float):
            return f"{value:g}"
        return "" if value is None else str(value)

    def rate(self, key: str) -> str:
        """Return a learning rate; empty if it is missing."""
        value = self.values.get(key)
        return scientific(value).replace(".0e", "e") if isinstance(value, float) else ""

    def counted(self, key: str, unit: str) -> str:
        """Return a count with its unit; empty if it is missing."""
        value = self.values.get(key)
        return f"{number(value)} {unit}".strip() if isinstance(value, int) else ""


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return what the finished stages were run with, and on what."""
    if not facts.records:
        return ()
    settings = _settings_of(facts)
    groups = (
        FactGroup("Model", _filled(_model(settings))),
        FactGroup("Data", _filled(_data(facts, settings))),
        FactGroup("Algorithm", _filled(_algorithm(settings))),
        FactGroup("Run", _filled(_run(facts))),
    )
    return (FactGroups(tuple(group for group in groups if group.rows)),)


def _filled(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple((name, value) for name, value in rows if value and value != MISSING)


def _model(settings: _Settings) -> list[Row]:
    rank, alpha = settings.text("lora.r"), settings.text("lora.alpha")
    kind = "rsLoRA" if settings.values.get("lora.use_rslora") else "LoRA"
    return [
        ("Base", settings.text("model.name_or_path")),
        ("Revision", settings.text("model.revision")),
        ("Number format", settings.text("model.dtype")),
        ("Quantization", settings.text("model.quantization").replace("none", "")),
        (f"{kind} rank", f"{rank}, alpha {alpha}" if rank and alpha else rank),
        ("Trained layers", settings.text("lora.target_modules")),
    ]


def _data(facts: RunFacts, settings: _Settings) -> list[Row]:
    trained = {
        "demonstrations": facts.sft.train_rows if facts.sft else None,
        "comparisons": facts.reward_model.train_rows if facts.reward_model else None,
        "prompts": None,
    }
    rows = []
    for kind in _DATA:
        source = settings.text(f"data.{kind}.source")
        count = trained[kind]
        rows.append(
            (
                kind.capitalize(),
                f"{source}, {number(count)} rows" if source and count is not None else source,
            )
        )
    rows.append(("Held-out prompts", number(facts.evaluation.prompts) if facts.evaluation else ""))
    rows.append(("Longest response", settings.counted("generation.max_new_tokens", "tokens")))
    return rows


def _algorithm(settings: _Settings) -> list[Row]:
    policy, critic = (
        settings.rate("ppo.learning_rate"),
        settings.rate("ppo.value_learning_rate"),
    )
    batch, mini = settings.text("ppo.rollout_batch_size"), settings.text("ppo.minibatch_size")
    return [
        ("Episodes", settings.counted("ppo.episodes", "")),
        ("Beta (KL coefficient)", settings.text("ppo.beta")),
        ("Learning rate, policy", policy),
        ("Learning rate, critic", critic),
        ("Batch", f"{batch} episodes, minibatches of {mini}" if batch and mini else batch),
        ("Epochs per batch", settings.text("ppo.epochs")),
        ("Clip range", settings.text("ppo.clip_range")),
        ("Learning rate, SFT", settings.rate("sft.learning_rate")),
        ("Learning rate, reward model", settings.rate("reward_model.learning_rate")),
    ]


def _run(facts: RunFacts) -> list[Row]:
    records = list(facts.records.values())
    machines = [record.machine for record in records]
    peaks = (peak_memory(steps) for steps in facts.curves.values())
    peak = max((value for value in peaks if value is not None), default=None)
    return [
        ("Hardware", _joined(machine.get("hardware", "") for machine in machines)),
        ("Time", duration(sum(record.seconds for record in records))),
        ("Peak memory", size_of(peak)),
        ("Seed", _joined(str(record.seed) for record in records)),
        ("Started", min(record.started for record in records)[:16].replace("T", " ") + " UTC"),
        ("rlhfctl", _joined(record.versions.get("rlhfctl", "") for record in records)),
        ("Commit", _joined(machine.get("commit", "") for machine in machines)),
    ]


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _settings_of(facts: RunFacts) -> _Settings:
    parts = (_flattened(record.recipe_part, "") for record in facts.records.values())
    return _Settings({key: value for part in parts for key, value in part})


def _flattened(value: JsonValue, name: str) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flattened(entry, f"{name}.{key}" if name else key)
    else:
        yield name, value
