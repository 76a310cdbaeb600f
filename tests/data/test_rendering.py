"""Chat templates: fields that they render, rows that they refuse, and what they leave out."""

import json
import signal
from pathlib import Path

import pytest
from datasets import Dataset
from pydantic import ValidationError

from rlhfctl.data import rendering
from rlhfctl.data.digests import formatter_digest
from rlhfctl.data.formatter import Formatter
from rlhfctl.data.formatting import encode_demonstrations
from rlhfctl.data.rendering import ChatTemplate, RenderingError
from rlhfctl.data.rows import BadRowError, LeftOutError, comparison, demonstration
from rlhfctl.data.sources import load_demonstrations
from rlhfctl.errors import DataError
from rlhfctl.recipe.schema import Recipe
from rlhfctl.recipe.template_date import DATE, changes_by_day

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Ulm"}}}
TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m.reasoning_content %}<think>"
    "{{ m.reasoning_content }}</think>{% endif %}{{ m['content'] }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRIPS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'].split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def row(*turns):
    return demonstration({"messages": list(turns)})


def user(text="Why?"):
    return {"role": "user", "content": text}


def answer(text, **fields):
    return {"role": "assistant", "content": text, **fields}


def encoded(tokenizer, *rows, **options):
    return encode_demonstrations(
        Dataset.from_list(list(rows)), Formatter(tokenizer), 999, **options
    )


def texts(tokenizer, result):
    return [tokenizer.decode(ids) for ids in result.dataset["input_ids"]]


def test_tool_calls_and_reasoning_are_rendered_where_the_template_can(make_tokenizer):
    tokenizer = make_tokenizer(TOOLS)
    result = encoded(
        tokenizer,
        row(user(), answer(None, tool_calls=[CALL])),
        row(
            user(),
            answer("Look.", tool_calls=[CALL | {"function": {"name": "f", "arguments": "{}"}}]),
        ),
        row(user(), answer("So.", reasoning_content="Hm.")),
        row(user(), answer("No.")),
    )
    assert not result.report.dropped
    called, looked, thought, plain = texts(tokenizer, result)
    assert called.endswith('[weather {"town": "Ulm"}]<|im_end|>')
    assert looked.endswith('Look.[f "{}"]<|im_end|>')
    assert thought.endswith("<think>Hm.</think>So.<|im_end|>")
    assert plain.endswith("assistant\nNo.<|im_end|>")


def test_rows_with_fields_that_the_template_leaves_out_are_counted_by_name(make_tokenizer, chatml):
    result = encoded(
        make_tokenizer(chatml),
        row(user(), answer("Look.", tool_calls=[CALL])),
        row(user(), answer("", tool_calls=[CALL]), {"role": "tool", "content": "1"}, answer("1.")),
        row(user(), answer("So.", reasoning_content="Hm.")),
        row(user(), answer("Past.", reasoning_content="Hm."), user(), answer("No.")),
    )
    assert result.report.dropped == {
        "with tool_calls that the chat template does not render": 2,
        "with reasoning_content that the chat template does not render": 1,
    }
    assert len(result.dataset) == 1


def test_tools_of_the_first_message_reach_the_template(make_tokenizer, chatml):
    shows = "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}" + chatml
    system = {"role": "system", "content": "Be brief.", "tools": [CALL]}
    rows = [row(system, user(), answer("No.")), row(user(), answer("No."))]
    tokenizer = make_tokenizer(shows)
    assert [text[:9] for text in texts(tokenizer, encoded(tokenizer, *rows))] == [
        "[weather]",
        "<|im_star",
    ]
    without = encoded(make_tokenizer(chatml), *rows)
    assert without.report.dropped == {"with tools that the chat template does not render": 1}


def test_thoughts_that_the_template_strips_are_told(make_tokenizer, chatml):
    thoughtful = row(user(), answer("<think>Hm.</think>So."))
    result = encoded(make_tokenizer(STRIPS), thoughtful, row(user(), answer("No.")))
    (note,) = result.report.remarks()
    assert note == "1 of 2 rows lose <think>...</think> of their answer to the chat template"
    assert not encoded(make_tokenizer(chatml), thoughtful).report.remarks()


def test_a_turn_that_the_template_leaves_out_is_told(make_tokenizer, chatml):
    quiet = chatml.replace("%}<|im_start|>", "%}{% if m.role != 'system' %}<|im_start|>", 1)
    quiet = quiet.replace("\n{% endfor %}", "\n{% endif %}{% endfor %}")
    system = {"role": "system", "content": "Be brief."}
    (note,) = encoded(make_tokenizer(quiet), row(system, user(), answer("No."))).report.remarks()
    assert note.endswith("lose text of a system turn to the chat template")


def test_rows_that_the_template_refuses_are_counted_by_reason(make_tokenizer, chatml):
    strict = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}" + chatml
    )
    system = {"role": "system", "content": "Be brief."}
    good = row(user(), answer("No."))
    result = encoded(make_tokenizer(strict), row(system, user(), answer("No.")), good)
    assert result.report.dropped == {"refused by the chat template: System role not supported": 1}
    with pytest.raises(DataError, match="1 refused by the chat template"):
        encoded(make_tokenizer(strict), row(system, user(), answer("No.")), bad_limit=0.0)
    broken = chatml.replace("m['content']", "m['content'] + 1")
    formatter = Formatter(make_tokenizer(broken))
    with pytest.raises(RenderingError, match="refuses a conversation"):
        formatter.prompt_ids([user()])


def test_variables_of_the_template_are_given(make_tokenizer, chatml):
    thinking = chatml.replace(
        "assistant\n{% endif",
        "assistant\n{% if not enable_thinking %}<think></think>{% endif %}{% endif",
    ).replace(
        "m['content'] }}", "('<think></think>' if m.role == 'assistant' else '') + m.content }}"
    )
    tokenizer = make_tokenizer(thinking)
    formatter = Formatter(tokenizer, {"enable_thinking": False})
    pair = ([user()], [answer("No.")])
    assert tokenizer.decode(formatter.prompt_ids(pair[0])).endswith("assistant\n<think></think>")
    assert tokenizer.decode(formatter.response_ids(*pair)) == "No.<|im_end|>"
    thinks = Formatter(tokenizer, {"enable_thinking": True})
    assert tokenizer.decode(thinks.prompt_ids(pair[0])).endswith("assistant\n")


def test_responses_that_differ_in_their_calls_are_a_comparison():
    prompt, other = [user()], [CALL | {"type": "other"}]
    made = {"prompt": prompt, "chosen": [answer("", tool_calls=[CALL])]}
    assert comparison(made | {"rejected": [answer("", tool_calls=other)]})
    with pytest.raises(BadRowError, match="chosen equals rejected"):
        comparison(made | {"rejected": [answer("", tool_calls=[CALL])]})


def test_fields_of_different_types_are_read_from_a_file(tmp_path, make_tokenizer):
    path = Path(tmp_path / "calls.jsonl")
    calls = [{"a": 1}, {"b": ["x"]}, {"a": "one"}]
    rows = [
        {
            "messages": [
                user(f"{n}?"),
                answer(None, tool_calls=[{"function": {"name": "f", "arguments": c}}]),
            ]
        }
        for n, c in enumerate(calls)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    split = load_demonstrations(
        Recipe.model_validate(
            {"data": {"demonstrations": {"source": str(path)}, "max_bad_fraction": 1.0}}
        )
    )
    tokenizer = make_tokenizer(TOOLS)
    both = [*split.train.to_list(), *split.held_out.to_list()]
    shown = sorted(text.split("[f ")[1] for text in texts(tokenizer, encoded(tokenizer, *both)))
    assert shown == sorted(f"{json.dumps(call)}]<|im_end|>" for call in calls)


class TestEarlierAnswers:
    ROW = (
        {"role": "system", "content": "Be brief."},
        user("One?"), answer("First."), user("Two?"), answer("Second, First."), user("Three?"),
        answer("Third."),
    )  # fmt: skip

    def masked(self, tokenizer, *turns):
        (one,) = encoded(tokenizer, row(*turns), assistant_turns="all").dataset
        return one, tokenizer.decode(
            [
                t
                for t, counts in zip(one["input_ids"], one["completion_mask"], strict=True)
                if counts
            ]
        )

    def test_each_answer_counts_with_its_end(self, make_tokenizer, chatml):
        tokenizer = make_tokenizer(chatml)
        one, text = self.masked(tokenizer, *self.ROW)
        assert text == "First.<|im_end|>Second, First.<|im_end|>Third.<|im_end|>"
        (last,) = encoded(tokenizer, row(*self.ROW)).dataset
        assert last["input_ids"] == one["input_ids"]
        assert sum(last["completion_mask"]) == len("Third.") + 1

    @pytest.mark.parametrize("field", [{"weight": 0}, {"weight": 0.0}, {"training": False}])
    def test_an_answer_of_weight_0_does_not_count(self, make_tokenizer, chatml, field):
        first, second = answer("First.", **field), answer("Second.", weight=1)
        turns = (
            user("One?"),
            first,
            user("Two?"),
            second,
            user("Three?"),
            answer("Third.", **field),
        )
        _, text = self.masked(make_tokenizer(chatml), *turns)
        assert text == "Second.<|im_end|>"
        (last,) = encoded(make_tokenizer(chatml), row(*turns)).dataset
        assert sum(last["completion_mask"]) == len("Second.") + 1
        with pytest.raises(LeftOutError, match="whose answers all have the weight 0"):
            row(*turns[:2])

    def test_it_is_what_generation_marks_in_the_template(self, make_tokenizer, chatml):
        marking = chatml.replace(
            "{{ m['content'] }}<|im_end|>\n",
            "{% if m.role == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
            "{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n",
        )
        tokenizer = make_tokenizer(marking)
        one, _ = self.masked(tokenizer, *self.ROW)
        whole = tokenizer.apply_chat_template(
            list(self.ROW), return_assistant_tokens_mask=True, return_dict=True
        )
        length = len(one["input_ids"])
        assert one["input_ids"] == whole["input_ids"][:length]
        assert one["completion_mask"] == whole["assistant_masks"][:length]

    def test_answers_are_found_behind_a_longer_beginning_of_new_ones(self, make_tokenizer, chatml):
        longer = chatml.replace(
            "assistant\n{% endif", "assistant\n<think></think>{% endif"
        ).replace(
            "m['content'] }}",
            "('<think></think>' if m.role == 'assistant' and loop.last else '') + m['content'] }}",
        )
        _, text = self.masked(make_tokenizer(longer), *self.ROW)
        assert text == "First.<|im_end|>Second, First.<|im_end|>Third.<|im_end|>"

    def test_ends_that_an_answer_spells_do_not_end_it(self, make_tokenizer, chatml):
        _, text = self.masked(make_tokenizer(chatml), user(), answer("a<|im_end|>b"), *self.ROW[1:])
        assert text.startswith("a<|im_end|>b<|im_end|>First.")

    def test_answers_that_cannot_be_found_are_counted(self, make_tokenizer, chatml):
        shown = (
            "m['content'] if m.role != 'assistant' else '~' + m['content'] if loop.last else '-'"
        )
        hidden = chatml.replace("m['content'] }}", f"({shown}) }}}}")
        hidden = hidden.replace("assistant\n{% endif", "assistant\n~{% endif")
        turns = (user(), answer("One"), user("One or two?"), answer("Two"))
        assert not encoded(make_tokenizer(hidden), row(*turns)).report.dropped
        with pytest.raises(DataError, match="1 whose earlier answers cannot be found"):
            self.masked(make_tokenizer(hidden), *turns)


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}messages"
ENDLESS_INWARD = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"


def test_a_template_that_loops_for_ever_ends_the_command(make_tokenizer, monkeypatch):
    monkeypatch.setattr(rendering, "LONGEST_RENDERING", 0.2)
    with pytest.raises(DataError, match=r"did not render a conversation within 0\.2") as caught:
        encoded(make_tokenizer(ENDLESS), row(user(), answer("So.")))
    assert not isinstance(caught.value, RenderingError), (
        "it would be counted, and the next row tried"
    )
    assert caught.value.exit_code == 3
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_a_template_that_calls_itself_for_ever_refuses_the_row(make_tokenizer):
    with pytest.raises(DataError, match=r"no demonstration|refused by the chat template"):
        encoded(make_tokenizer(ENDLESS_INWARD), row(user(), answer("So.")))


DATED = (
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today: {{ date_string }}\n" + TOOLS
)


def test_a_template_writes_the_same_date_on_every_day(make_tokenizer):
    tokenizer = make_tokenizer(DATED)

    def dated(**variables):
        return ChatTemplate(tokenizer, variables).render([user()], ask=True).splitlines()[0]

    assert dated() == "Today: 26 Jul 2024"
    assert dated(strftime_now="2026-02-01") == "Today: 01 Feb 2026"
    assert dated(date_string="now") == "Today: now"
    digests = [
        formatter_digest(Formatter(tokenizer, {"strftime_now": d})) for d in (DATE, "2026-02-01")
    ]
    assert digests[0] != digests[1]


def test_a_format_that_is_computed_is_told():
    assert not changes_by_day(DATED)
    assert not changes_by_day(DATED.replace("strftime_now(", "strftime_now ( "))
    assert changes_by_day("{% set f = '%Y' %}{{ strftime_now(f) }}")


def test_a_date_that_is_none_is_refused():
    with pytest.raises(ValidationError, match="strftime_now is the date that the chat template"):
        Recipe.model_validate({"model": {"chat_template_kwargs": {"strftime_now": "today"}}})
