"""Secrets in recipes are refused, and shown nowhere."""

import json
import traceback

import pytest

from rlhfctl.cli.boundary import describe, explain
from rlhfctl.errors import RecipeError
from rlhfctl.recipe.addresses import without_secrets
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.reward_sources import RewardSourceSection

SECRET = "hunter2-canary"
PLACES = [
    {"ppo": {"reward_sources": [{"source": f"http://me:{SECRET}@host/score"}]}},
    {"ppo": {"reward_sources": [{"source": f"https://:{SECRET}@host/score"}]}},
    {"ppo": {"reward_sources": [{"source": f"https://{SECRET}@host/score"}]}},
    {"ppo": {"reward_sources": [{"source": f"https://host/score?key={SECRET}"}]}},
    {"ppo": {"reward_sources": [{"source": f"https://host/score#{SECRET}"}]}},
    {"ppo": {"reward_sources": [{"source": f"https://a:{SECRET}@[host/score"}]}},
    {"ppo": {"reward_sources": [{"source": f"https://a:{SECRET}@host/", "dtype": "float32"}]}},
    {"ppo": {"reward_sources": [{"source": "https://host/score", "api_key_env": f"{SECRET}"}]}},
    {"ppo": {"reward_sources": f"https://me:{SECRET}@host/score"}},
    {"ppo": {"reward_sources": [{"source": "rm", "weight": f"http://me:{SECRET}@host"}]}},
    {"evaluation": {"judge_endpoint": {"url": f"ftp://me:{SECRET}@host", "model": "m"}}},
    {"evaluation": {"judge_endpoint": {"url": f"http://host?k={SECRET}", "model": "m"}}},
    {"evaluation": {"judge_endpoint": f"http://host?k={SECRET}"}},
    {"data": {"prompts": {"source": f"s3://me:{SECRET}@host/rows.jsonl"}}},
    {"ppo": {"reward_sources": [{"source": f"ftp://me:{SECRET}@host/score"}]}},
    {"evaluation": {"judge_endpoint": {"url": "http://host", "model": "m", "api_key": SECRET}}},
]


@pytest.mark.parametrize("recipe", PLACES, ids=str)
def test_a_secret_in_a_recipe_is_refused_and_never_shown(recipe, tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps(recipe))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert any(key in str(caught.value) for key in ("reward_sources", "judge_endpoint", "prompts"))
    assert explain(caught.value, as_json=True, debug=True) == 2
    shown = capsys.readouterr()
    told = "".join(traceback.format_exception(caught.value)) + json.dumps(describe(caught.value))
    assert SECRET not in shown.out + shown.err + told


def test_a_server_source_is_told_where_its_key_belongs(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps(PLACES[0]))
    with pytest.raises(RecipeError, match="api_key_env"):
        load_recipe(path)


def test_the_key_comes_from_the_environment(monkeypatch):
    source = RewardSourceSection(source="http://host/score", api_key_env="SCORE_KEY")
    monkeypatch.setenv("SCORE_KEY", SECRET)
    assert source.authorization("x") == {"Authorization": f"Bearer {SECRET}"}
    monkeypatch.delenv("SCORE_KEY")
    with pytest.raises(RecipeError, match="SCORE_KEY is not set"):
        source.authorization("x")
    with pytest.raises(ValueError, match="api_key_env cannot be set"):
        RewardSourceSection(source="rm", api_key_env="SCORE_KEY")


def test_addresses_without_secrets_stay_whole():
    text = "see http://host:80/a/b, not me@host or a?b=c"
    assert without_secrets(text) == text
