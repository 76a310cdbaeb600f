"""The Hub, the token and the repositories of a recipe, asked of a Hub on this machine."""

CODE = """
import os
from rlhfctl.doctor.hub import check_hub
from rlhfctl.recipe.schema import Recipe
def checks(token=None, model="embedded", source="embedded"):
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    recipe = Recipe.model_validate({
        "model": {"name_or_path": model}, "data": {"comparisons": {"source": source}}
    })
    return [f"{c.name} {c.level}: {c.what} {c.remedy}" for c in check_hub(recipe)]
"""


def test_token_licences_and_sizes(outcomes):
    calls = {
        "checks()": ("token ok: none", "Hub ok"),
        "checks('hf_valid')": ("token ok: valid", "Hub ok"),
        "checks('hf_old')": ("token fail: the Hub refuses it", "unset HF_TOKEN"),
        "checks(model='org/gated')": ("base model fail", "Accept its licence at http://127"),
        "checks(source='org/private')": ("data set fail", "org/private: is not on the Hub"),
        "checks(model='org/tiny', source='org/pairs')": (
            "base model ok: org/tiny: 5 MB",
            "org/pairs: 3 kB",
        ),
    }
    results = outcomes(CODE, list(calls))
    for call, (kind, text) in zip(calls, results, strict=True):
        assert kind == "", text
        assert all(part in text for part in calls[call]), (call, text)
        assert "hf_" not in text


def test_no_hub_is_a_warning(outcomes):
    ((kind, text),) = outcomes(CODE, ["checks()"], HF_ENDPOINT="http://127.0.0.1:9")
    assert kind == ""
    assert text.startswith("['Hub warn: http://127.0.0.1:9 cannot be reached")
