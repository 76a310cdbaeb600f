"""lm-evaluation-harness on a task of a local file, without a network; runs where rlhfctl[tax] is."""

import importlib.util
import json
import random

import pytest
import torch

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.recipe.permissions import ALLOW_CODE
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.evaluation.stage import run as evaluate

INSTALLED = importlib.util.find_spec("lm_eval") is not None
TASK = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture(autouse=True)
def permission(monkeypatch):
    monkeypatch.setenv(ALLOW_CODE, "1")


@pytest.fixture(scope="module")
def rows():
    rng = random.Random(0)
    made = []
    for _ in range(24):
        a, b = rng.randint(0, 9), rng.randint(0, 9)
        choices = [f"The answer is {a + b + step}." for step in (0, 1)]
        answer = rng.randint(0, 1)
        choices = choices if answer == 0 else choices[::-1]
        made.append({"question": f"What is {a} plus {b}?", "choices": choices, "answer": answer})
    return made


@pytest.fixture(scope="module")
def task(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    data = folder / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sums.yaml").write_text(TASK.format(rows=data))
    return folder / "sums.yaml"


def judged(run, output, **tax):
    section = run.recipe.evaluation
    evaluation = section.model_copy(
        update={
            "tax": section.tax.model_copy(update=tax),
            "tax_demonstrations": 0,
            "tax_questions": 0,
        }
    )
    recipe = run.recipe.model_copy(update={"evaluation": evaluation})
    inputs = {name: run.stage(name) for name in ("sft", "rm", "ppo")}
    return evaluate(recipe, inputs, output, NullMonitor()).metrics


@pytest.mark.skipif(not INSTALLED, reason="lm-eval is not installed: pip install 'rlhfctl[tax]'")
class TestInstalled:
    def test_each_policy_gets_the_accuracy_of_its_own_model(self, tiny_run, tmp_path, task, rows):
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from rlhfctl.world.model import embedded_path

        metrics = judged(tiny_run, tmp_path, tasks=[str(task)], chat_template=True)
        found = metrics["tax"]["tasks"]["sums.acc"]
        tokenizer = AutoTokenizer.from_pretrained(embedded_path())

        @torch.no_grad()
        def accuracy(model):
            right = 0
            for row in rows:
                question = [{"role": "user", "content": row["question"]}]
                start = tokenizer.apply_chat_template(
                    question, tokenize=False, add_generation_prompt=True
                )
                sums = []
                for choice in row["choices"]:
                    ids = tokenizer(start, add_special_tokens=False)["input_ids"]
                    whole = tokenizer(start + choice, add_special_tokens=False)["input_ids"]
                    table = model(torch.tensor([whole])).logits[0, :-1].log_softmax(-1)
                    picked = table.gather(1, torch.tensor(whole[1:])[:, None])[:, 0]
                    sums.append(float(picked[len(ids) - 1 :].sum()))
                right += sums.index(max(sums)) == row["answer"]
            return right / len(rows)

        base = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32).eval()
        assert found["base"] == pytest.approx(accuracy(base))
        for name in ("sft", "ppo"):
            base = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32)
            model = PeftModel.from_pretrained(base, tiny_run.stage(name)).eval()
            assert found[name] == pytest.approx(accuracy(model)), name
        assert found["metric"] == "acc"
        assert found["examples"] == 24
        assert found["ppo_minus_sft_low"] <= found["ppo_minus_sft"] <= found["ppo_minus_sft_high"]

    def test_the_limit_holds_and_full_fine_tuning_has_no_base(self, tiny_full_run, tmp_path, task):
        found = judged(tiny_full_run, tmp_path, tasks=[str(task)], limit=5)["tax"]["tasks"]
        assert found["sums.acc"]["examples"] == 5
        assert "base" not in found["sums.acc"]

    @pytest.mark.slow
    def test_a_task_that_is_none_is_named(self, tiny_run, tmp_path):
        with pytest.raises(RecipeError, match="no task no_such_task"):
            judged(tiny_run, tmp_path, tasks=["no_such_task"])


@pytest.mark.skipif(INSTALLED, reason="lm-eval is installed")
def test_tasks_without_the_extra_are_refused_before_anything_is_loaded(tiny_run, tmp_path):
    with pytest.raises(EnvironmentFault, match=r"lm-eval.* is not installed\n.*rlhfctl\[tax\]"):
        judged(tiny_run, tmp_path, tasks=["arc_easy"])
    assert not list(tmp_path.iterdir())
