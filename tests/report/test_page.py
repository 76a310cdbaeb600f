import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlhfctl.cli.summary import headline
from rlhfctl.report.markdown import report
from rlhfctl.report.page import render
from rlhfctl.report.sources import read_run
from rlhfctl.results.io import to_json
from rlhfctl.results.samples import TrainingSample
from rlhfctl.run.manifest import Artifact, Manifest, StageRecord
from rlhfctl.run.sealed import sealed
from tests.report import shapes

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "<a href='javascript:alert(1)'>x</a>",
    "<iframe src='https://evil.example/'></iframe>",
    "<style>*{background:url(https://evil.example/)}</style>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<base href='https://evil.example/'>",
    "<form action='https://evil.example/'><button>x</button></form>",
    "</textarea></title></pre></style>-->]]><script>alert(1)</script>",
    "<!--<script>",
    "{{ 7 * 7 }}{% for x in y %}",
    "&lt;script&gt;&#60;script&#62;",
    "\x1b]8;;https://evil.example/\x07link\x1b]8;;\x07",
    "\u202e\u2066right to left",
    "\ud800 lone",
]
VOID = {"meta", "input", "circle", "line", "path", "link", "base", "img", "br"}
OUR_TAGS = {
    *("nav", "a", "label", "input", "select", "option", "output", "script"),
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "footer"),
    *("h1", "h2", "h3", "h4", "p", "span", "b", "small", "ul", "li", "code", "pre"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary"),
    *(
        "ol",
        "dl",
        "dt",
        "dd",
        "figure",
        "figcaption",
        "article",
        "div",
        "svg",
        "g",
        "path",
        "line",
        "circle",
        "text",
    ),
}
URL_ATTRIBUTES = {"src", "href", "xlink:href", "action", "formaction", "data", "poster", "srcset"}


class Page(HTMLParser):
    """Parse the page as a browser would, as far as the tests need."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.comments: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self._open[-1:] != ["style"]:
            self.text += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def poisoned(root: Path, payload: str) -> Path:
    """Put a payload everywhere a model, a data set or a recipe can put text."""
    rows = [{"prompt": payload, "sft": payload, "ppo": payload, "scores": {}}]
    (root / "eval" / "samples.jsonl").write_text(json.dumps(rows[0]) + "\n")
    sample = to_json(TrainingSample(1, payload, payload, 1.0, 1.0, ended=True))
    (root / "ppo" / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    (root / "recipe.yaml").write_bytes(payload.encode("utf-8", "replace"))
    with (root / "logs" / "ppo.jsonl").open("a") as log:
        log.write(json.dumps({"step": 2000, payload: 1.0}) + "\n")
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["stages"]["rm"]["metrics"]["per_annotator"][payload] = {"accuracy": 0.5, "pairs": 9}
    manifest["stages"]["sft"]["versions"][payload] = payload
    manifest["stages"]["sft"]["recipe_part"]["model"]["name_or_path"] = payload
    manifest["stages"]["sft"]["outputs"][payload] = {"path": payload, "sha256": payload}
    manifest["stages"]["ppo"]["metrics"][payload] = 1.0
    manifest["stages"]["sft"]["started"] = payload
    (root / "manifest.json").write_text(json.dumps(sealed(manifest)))
    return root


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_models_and_data_stays_text(finished_run: Path, payload: str) -> None:
    clean = Page(render(finished_run))
    html = render(poisoned(finished_run, payload))
    page = Page(html)
    assert page.scripts[-1] == clean.scripts[-1]
    # one more curve, with its points
    assert page.tags.count("script") == clean.tags.count("script") + 1
    html.encode()
    assert set(page.tags) <= OUR_TAGS
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.comments == []
    seen = re.escape(payload) if payload.isascii() and payload.isprintable() else r"\\u"
    assert len(re.findall(seen, page.text)) >= 9


# Fields whose text is one of ours, not a model's or a data set's.
FIXED = {"judge", "kind", "opponent", "form", "true_reward"}


def spoken(value: Any, payload: str) -> Any:
    """The value with the payload in every text and in every name that a run can choose."""
    if isinstance(value, dict):
        own = {name for name in value if name in shapes.CHOSEN}
        return {
            payload if name in own else name: found if name in FIXED else spoken(found, payload)
            for name, found in value.items()
        }
    if isinstance(value, list):
        return [spoken(found, payload) for found in value]
    return payload if isinstance(value, str) else value


@pytest.mark.parametrize("payload", [PAYLOADS[1], PAYLOADS[3], PAYLOADS[17]])
def test_names_and_warnings_in_metrics_stay_text(judged_run: Path, payload: str) -> None:
    clean = Page(render(judged_run))
    for file in (
        judged_run / "eval" / "metrics.json",
        judged_run / "ppo" / "over_optimisation.json",
    ):
        file.write_text(json.dumps(spoken(json.loads(file.read_text()), payload)))
    page = Page(render(judged_run))
    assert len(re.findall(re.escape(payload) if payload.isascii() else r"\\u", page.text)) > 20
    assert set(page.tags) <= OUR_TAGS
    assert page.tags.count("script") == clean.tags.count("script")
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    lines = report(read_run(judged_run)).splitlines()
    assert not [line for line in lines if re.search(r"(?<!\\)<", line)]


def test_the_page_asks_for_nothing_from_outside(finished_run: Path) -> None:
    html = render(finished_run)
    page = Page(html)
    links = [value for _, name, value in page.attributes if name in URL_ATTRIBUTES]
    assert links
    assert all(re.fullmatch("#[a-z-]+", link) for link in links)
    without_namespace = html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//\w|@import|url\(", without_namespace)
    (policy,) = [v for _, n, v in page.attributes if n == "content" and "default-src" in v]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_only_the_pages_own_script_may_run(finished_run: Path) -> None:
    page = Page(render(finished_run))
    *data, script = page.scripts
    (policy,) = [v for _, n, v in page.attributes if n == "content" and "default-src" in v]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    kinds = [value for tag, name, value in page.attributes if (tag, name) == ("script", "type")]
    assert kinds == ["application/json"] * len(data)
    for points in data:
        json.loads(points)


def test_a_finished_run_shows_verdict_metrics_curves_samples_and_provenance(
    finished_run: Path,
) -> None:
    html = render(finished_run)
    page = Page(html)
    text = " ".join(page.text.split())
    assert "PPO beats SFT: gold win rate" in text
    for section in ("Stages", "Evaluation", "Reward model", "Curves", "All samples", "Provenance"):
        assert f" {section} " in text
    for part in ("Annotator ada", "question 11", "kept on the way", "hash-ppo", "1.16.0", "seed 7"):
        assert part in text
    assert "data.prompts.sourceorg/questions0123abcd" in text  # cells
    assert (
        page.tags.count("figure") == 7
    )  # the first; a loss each; PPO score, KL, its loss and beta


def test_a_dpo_policy_is_called_by_its_name(make_run: Callable[..., Path]) -> None:
    root = make_run("sft", "rm", "eval")
    manifest = Manifest.load(root / "manifest.json")
    record = manifest.stages["eval"]
    for origin, name in (({"stage": "dpo"}, "DPO"), ({"stage": "ppo"}, "PPO"), (None, "DPO")):
        folder = root / "dpo"
        folder.mkdir(exist_ok=True)
        (folder / "rlhfctl.json").unlink(missing_ok=True)
        if origin is not None:
            (folder / "rlhfctl.json").write_text(json.dumps(origin))
        inputs = record.inputs | {"ppo": Artifact("dpo", "hash")}
        manifest.with_stage(replace(record, inputs=inputs)).save(root / "manifest.json")
        text = " ".join(Page(render(root)).text.split())
        assert f"{name} beats SFT: gold win rate" in text
        assert f"Win rate of {name} over SFT" in text
        assert f"{name} preferred" in text
        if name == "DPO":
            assert "PPO beats" not in text
            assert "PPO preferred" not in text
        lines = headline(
            Manifest.load(root / "manifest.json").stages["eval"], root / "manifest.json"
        )
        assert any(line.startswith(f"{name} win rate over SFT") for line in lines)


def test_steps_that_end_at_the_number_of_episodes_are_episodes(finished_run: Path) -> None:
    text = " ".join(Page(render(finished_run)).text.split())
    assert "SFT over steps" in text
    assert "PPO over episodes" in text


@pytest.mark.parametrize("stages", [(), ("sft",), ("sft", "rm"), ("sft", "rm", "ppo")])
def test_an_unfinished_run_shows_what_there_is_and_what_comes_next(
    make_run: Callable[..., Path], stages: tuple[str, ...]
) -> None:
    text = " ".join(Page(render(make_run(*stages))).text.split())
    following = ("rlhfctl sft", "rlhfctl train-rm", "rlhfctl ppo", "rlhfctl eval")[len(stages)]
    assert f"Next: {following}." in text
    assert f"not run yet: {following}" in text
    assert ("Curves" in text) == bool(stages)
    assert "Samples" not in text


def test_a_stage_that_broke_off_still_shows_its_curves(make_run: Callable[..., Path]) -> None:
    root = make_run("sft")
    (root / "logs" / "rm.jsonl").write_text('{"step": 5, "loss": 0.7}\n{"step": 10, "lo')
    text = " ".join(Page(render(root)).text.split())
    assert "Reward model unfinished: rlhfctl train-rm" in text
    assert "nats per comparison" in text


def test_an_empty_folder_renders(tmp_path: Path) -> None:
    assert "No stage is finished" in render(tmp_path)


def test_metrics_that_are_not_numbers_never_show_as_nan(finished_run: Path) -> None:
    file = finished_run / "eval" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["policies"]["ppo"]["gold"] = float("nan")
    metrics["gold_gain"] = metrics["gold_gain_low"] = float("inf")
    metrics["policies"]["ppo"]["kl"] = None  # as the manifest writes NaN
    file.write_text(json.dumps(metrics))
    (finished_run / "logs" / "sft.jsonl").write_text('{"step": 1, "loss": null}\n')
    page = Page(render(finished_run))
    assert not re.search(r"\b(nan|inf|infinity|none|null)\b", page.text, re.IGNORECASE)
    values = " ".join(value for tag, _, value in page.attributes if tag in {"path", "line"})
    assert "nan" not in values.lower()


def test_versions_that_differ_between_stages_name_them(
    finished_run: Path, make_record: Callable[..., StageRecord]
) -> None:
    path = finished_run / "manifest.json"
    later = make_record(
        "ppo", to_json(shapes.ppo_result()), versions={"python": "3.11.9", "trl": "1.16.1"}
    )
    Manifest.load(path).with_stage(later).save(path)
    text = " ".join(Page(render(finished_run)).text.split())
    assert "trl 1.16.0 (sft, rm, eval); 1.16.1 (ppo)" in text
    assert "python 3.11.9" in text


def test_the_page_stays_small_however_long_the_run_and_its_texts(finished_run: Path) -> None:
    names = [f"figure_{index}" for index in range(40)]
    with (finished_run / "logs" / "ppo.jsonl").open("w") as log:
        for step in range(3000):
            log.write(json.dumps({"step": step} | dict.fromkeys(names, step % 7)) + "\n")
    row = {"prompt": "世" * 50_000, "sft": "<" * 50_000, "ppo": "\x00" * 50_000, "scores": {}}
    (finished_run / "eval" / "samples.jsonl").write_text((json.dumps(row) + "\n") * 100)
    assert len(render(finished_run).encode()) < 2_000_000


def test_the_same_run_gives_the_same_page(finished_run: Path) -> None:
    assert render(finished_run) == render(finished_run)
