"""Every causal language model class of transformers, as rlhfctl's roles against plain transformers.

Each class becomes a random model of a few thousand weights, on disk with an SFT and a reward
checkpoint: as LoRA adapters, as adapters on a 4-bit base, and as whole models. Of its roles,
log-probabilities, scores and values of a padded batch must equal those of one row at a time, and
sampled tokens must be those that the plain model finds most likely.

``python -m benchmarks.architectures`` writes docs/reference/models.md and fails if the table of
positions in `rlhfctl.models.architecture` is wrong. With names of types or ``--modes``, those are
examined anew and the rest is taken from the results of before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import architectures_page, output
from benchmarks.tiny_models import (
    POSITIONS,
    VOCABULARY,
    causal_model_types,
    tiny_config,
    tiny_model,
    write_tokenizer,
)
from rlhfctl.errors import RecipeError, RlhfctlError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models import adapters, roles
from rlhfctl.models.architecture import ENDING_POSITIONS, NAMED_LAYERS, refusal, require_fit
from rlhfctl.models.base import decoder_of, keep_backward, load_causal_lm, quantization_config
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.recipe.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

MODES = ("lora", "4bit", "full")
TOLERANCE = 1e-3
"""Largest difference in nats, or in units of the score; logits have a deviation of three nats."""
PAIRS = ((9, 4), (3, 7), (12, 2))
"""Lengths of prompt and response of each row."""
EOS, PAD, SEED = 2, 0, 3


@dataclass
class Result:
    """Faults found with one model type.

    Attributes:
        model_type: Its name in config.json.
        model_class: Class in transformers.
        refused: Why it is refused; None if it is not.
        untried: Why no tiny model of it was made; None if one was.
        faults: Mode -> measured quantity -> what is wrong with it.
    """

    model_type: str
    model_class: str
    refused: str | None = None
    untried: str | None = None
    faults: dict[str, dict[str, str]] = field(default_factory=dict)


def recipe_of(base: Path, mode: str, model_type: str) -> Recipe:
    """Return a recipe for a base in a mode, in fp32."""
    layers = list(NAMED_LAYERS.get(model_type, ())) or "all-linear"
    return Recipe.model_validate(
        {
            "model": {
                "name_or_path": str(base),
                "dtype": "float32",
                "quantization": "4bit" if mode == "4bit" else "none",
            },
            "lora": None if mode == "full" else {"r": 4, "alpha": 8, "target_modules": layers},
            "generation": {"max_new_tokens": 8, "temperature": 1e-4},
        }
    )


def _random(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _adapter(base: Any, recipe: Recipe, seed: int) -> tuple[dict[str, Tensor], Any]:
    """Return the weights of a random adapter, neither factor 0, and its configuration."""
    from peft import get_peft_model, get_peft_model_state_dict

    if recipe.lora is None:
        raise ValueError("whole models have no adapter")
    model = get_peft_model(base, adapters.new_config(recipe.lora, "CAUSAL_LM"))
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    drawn = {
        name: 0.1 * _random(tensor.shape, seed + number)
        for number, (name, tensor) in enumerate(sorted(weights.items()))
    }
    return drawn, model.peft_config["default"]


class Checkpoints:
    """Folders of a model type's base, SFT model and reward model, and how plain code reads them."""

    def __init__(self, model_type: str, mode: str, folder: Path) -> None:
        """Write the folders.

        Raises:
            RlhfctlError: rlhfctl refuses the model.
        """
        self.folder, self.mode = folder, mode
        self.base = folder / "base"
        tiny_model(model_type).save_pretrained(self.base)
        self.tokenizer = write_tokenizer(self.base)
        self.recipe = recipe_of(self.base, mode, model_type)
        config = json.loads((self.base / "config.json").read_text(encoding="utf-8"))
        for _ in require_fit(self.recipe, config, ()):
            pass
        width = int(tiny_config(model_type).get_text_config().hidden_size)
        self.score = _random((1, width), SEED)
        if mode == "full":
            self._write_whole(model_type)
        else:
            self._write_adapters()
        ScoreNormalization(0.0, 1.0, 8).save(folder / "rm")

    def _write_adapters(self) -> None:
        base = load_causal_lm(self.recipe.model)
        name = str(self.base)
        for stage, seed in (("sft", 100), ("rm", 200)):
            weights, config = _adapter(base, self.recipe, seed)
            base = load_causal_lm(self.recipe.model)
            task = "CAUSAL_LM" if stage == "sft" else "SEQ_CLS"
            adapters.save_adapter(
                weights, config, self.folder / f"plain-{stage}", name, "CAUSAL_LM"
            )
            head = {} if stage == "sft" else {adapters.head_key("score", "weight"): self.score}
            adapters.save_adapter(weights | head, config, self.folder / stage, name, task)

    def _write_whole(self, model_type: str) -> None:
        from rlhfctl.models.scorer import head_of, load_scorer

        for stage, seed in (("plain-sft", 1), ("plain-rm", 2)):
            tiny_model(model_type, seed).save_pretrained(self.folder / stage)
        tiny_model(model_type, 1).save_pretrained(self.folder / "sft")
        scorer = load_scorer(self.recipe.model, PAD, str(self.folder / "plain-rm"))
        with torch.no_grad():
            head_of(scorer).weight.copy_(self.score)
        scorer.save_pretrained(self.folder / "rm")

    def roles(self) -> roles.Roles:
        """Return the roles that PPO would train."""
        sft, rm = self.folder / "sft", self.folder / "rm"
        return roles.load_roles(
            self.recipe, self.tokenizer, [EOS], sft, [rm], critic="reward_model"
        )

    def plain(self, stage: str) -> Any:
        """Return the language model of a stage by transformers and peft alone."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        folder = self.folder / f"plain-{stage}"
        if self.mode == "full":
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        base = AutoModelForCausalLM.from_pretrained(
            self.base,
            dtype=torch.float32,
            quantization_config=quantization_config(self.recipe.model),
        )
        keep_backward(base)
        return PeftModel.from_pretrained(base, folder).eval()


def _rows() -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(SEED)
    lengths = [prompt + response for prompt, response in PAIRS]
    drawn = [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
    return [(ids[:prompt], ids[prompt:]) for ids, (prompt, _) in zip(drawn, PAIRS, strict=True)]


def _next_logits(model: Any, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """Return the plain model's logits [R, V] of the response's tokens, without padding or cache."""
    ids = torch.tensor([[*prompt, *response]])
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits


@torch.no_grad()
def _log_probs(found: roles.Roles, checkpoints: Checkpoints, batch: Sequences) -> float:
    model, worst = checkpoints.plain("sft"), 0.0
    warm = found.with_sampling(temperature=1.0, max_new_tokens=8)
    both = [warm.log_probs(role, batch).log_probs for role in ("policy", "reference")]
    for row, (prompt, response) in enumerate(_rows()):
        table = _next_logits(model, prompt, response).log_softmax(-1)
        expected = table.gather(1, torch.tensor(response)[:, None])[:, 0]
        errors = [(part[row, : len(response)] - expected).abs().max() for part in both]
        worst = max(worst, *map(float, errors))
    return worst


@torch.no_grad()
def _scores_and_values(
    found: roles.Roles, checkpoints: Checkpoints, batch: Sequences
) -> tuple[float, float]:
    model = checkpoints.plain("rm")
    language = model if checkpoints.mode == "full" else model.get_base_model()
    scores, values = found.raw_scores(batch), found.values(batch)
    worst_score = worst_value = 0.0
    for row, (prompt, response) in enumerate(_rows()):
        states = decoder_of(language)(torch.tensor([prompt + response]), use_cache=False)[0][0]
        expected = (states @ checkpoints.score.T)[:, 0]
        worst_score = max(worst_score, float((scores[row] - expected[-1]).abs()))
        before = expected[len(prompt) - 1 : -1]
        error = (values[row, : len(response)] - before).abs().max()
        worst_value = max(worst_value, float(error))
    return worst_score, worst_value


@torch.no_grad()
def _generation(found: roles.Roles, checkpoints: Checkpoints) -> float:
    """Return how far, in nats, the model found a sampled token behind its most likely one."""
    prompts = [prompt for prompt, _ in _rows()]
    responses = found.generate(prompts, [(SEED, row) for row in range(len(prompts))])
    model, worst = checkpoints.plain("sft"), 0.0
    for prompt, response in zip(prompts, responses, strict=True):
        logits = _next_logits(model, prompt, response)
        chosen = logits.gather(1, torch.tensor(response)[:, None])[:, 0]
        worst = max(worst, float((logits.amax(-1) - chosen).max()))
    return worst


def _gradient(found: roles.Roles, batch: Sequences) -> float:
    """Return 0 if a training pass gives policy and critic finite gradients, else infinity."""
    found.log_probs("policy", batch, training=True, temperature=1.0).log_probs.sum().backward()
    found.values(batch, training=True).sum().backward()
    for role in ("policy", "critic"):
        grads = [w.grad for w in found.trainable(role).values() if w.grad is not None]
        total = sum(float(grad.abs().sum()) for grad in grads)
        if not 0.0 < total < float("inf"):
            return float("inf")
    return 0.0


def check(model_type: str, mode: str, folder: Path) -> dict[str, str]:
    """Return what is wrong with a model type in a mode: measured quantity -> fault.

    Args:
        model_type: One of `causal_model_types`.
        mode: One of `MODES`.
        folder: Empty folder for checkpoints.
    """
    try:
        checkpoints = Checkpoints(model_type, mode, folder)
        found = checkpoints.roles()
    except RecipeError as error:
        return {"refused": error.what}
    except Exception as error:
        return {"loading": _sentence(error)}
    prompts, responses = zip(*_rows(), strict=True)
    batch = Sequences.from_lists(prompts, responses, PAD)
    measured: dict[str, Callable[[], float | tuple[float, float]]] = {
        "log-prob": lambda: _log_probs(found, checkpoints, batch),
        "score, value": lambda: _scores_and_values(found, checkpoints, batch),
        "generation": lambda: _generation(found, checkpoints),
        "gradient": lambda: _gradient(found, batch),
    }
    faults = {name: _fault(measure) for name, measure in measured.items()}
    return {name: fault for name, fault in faults.items() if fault is not None}


def _fault(measure: Callable[[], float | tuple[float, float]]) -> str | None:
    try:
        worst = float(torch.tensor(measure()).max())
    except Exception as error:
        return _sentence(error)
    return None if worst <= TOLERANCE else f"off by {worst:.2g}"


def _sentence(error: Exception) -> str:
    text = error.what if isinstance(error, RlhfctlError) else str(error)
    first = text.strip().splitlines()[0] if text.strip() else ""
    return f"{type(error).__name__}: {first}"[:160]


def positions_fault(model_type: str, model: Any) -> str | None:
    """Return what `ENDING_POSITIONS` has wrong about a type; None if nothing."""
    ids = torch.full((1, POSITIONS + 1), 5)
    try:
        with torch.no_grad():
            model(ids, use_cache=False)
    except (IndexError, RuntimeError, ValueError):
        ends = True
    else:
        ends = False
    if ends != (model_type in ENDING_POSITIONS):
        return f"positions {'end' if ends else 'do not end'} at the config's number"
    return None


def examine(model_type: str, modes: Sequence[str] = MODES) -> Result:
    """Return what is found of one model type in some modes."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    result = Result(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])
    try:
        config = tiny_config(model_type)
        result.refused = refusal(config.to_dict())
        if result.refused is not None:
            return result
        fault = positions_fault(model_type, tiny_model(model_type))
    except Exception as error:
        result.untried = _sentence(error)
        return result
    for mode in modes:
        with tempfile.TemporaryDirectory() as folder:
            result.faults[mode] = check(model_type, mode, Path(folder))
    if fault is not None:
        result.faults["positions"] = {"positions": fault}
    return result


def _earlier() -> dict[str, Result]:
    path = output.RESULTS / "architectures.json"
    if not path.is_file():
        return {}
    return {row["model_type"]: Result(**row) for row in json.loads(path.read_text())["types"]}


def main() -> None:
    """Examine types and write the page of all."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="model types to examine; default: all")
    parser.add_argument(
        "--modes", nargs="*", choices=MODES, default=MODES, help="modes to examine; default: all"
    )
    parser.add_argument("--print", action="store_true", help="print results, change no file")
    options = parser.parse_args()
    found = {} if options.print else _earlier()
    for model_type in options.types or causal_model_types():
        result = examine(model_type, options.modes)
        print(asdict(result), flush=True)
        earlier = found.get(model_type)
        kept = earlier.faults if earlier is not None and result.faults else {}
        found[model_type] = replace(result, faults=kept | result.faults)
    results = [found[model_type] for model_type in causal_model_types() if model_type in found]
    if not options.print:
        libraries = {name: version(name) for name in ("transformers", "peft", "bitsandbytes")}
        output.write(
            "architectures", {"versions": libraries, "types": [asdict(r) for r in results]}
        )
        architectures_page.write(results, libraries)
    if any("positions" in result.faults for result in results):
        sys.exit("ENDING_POSITIONS of rlhfctl/models/architecture.py is wrong; see above")


if __name__ == "__main__":
    main()
