"""Rows: every documented form becomes the same few columns, or is counted with its cause."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhfctl.data.message_fields import fields_of
from rlhfctl.data.rows import BadRowError, as_chat, comparison, demonstration, prompt_of


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [SYSTEM, user("One?"), assistant("1"), user("Two?")]
HH = "\n\nHuman: One?\n\nAssistant: 1\n\nHuman: Two?\n\nAssistant:"


class TestDemonstrations:
    def test_standard(self):
        row = {"prompt": "The sky is", "completion": " blue."}
        assert demonstration(row) == row

    def test_conversational(self):
        row = {"prompt": TALK, "completion": [assistant("2")]}
        assert demonstration(row) == row

    def test_messages_are_split_before_the_last_answer(self):
        assert demonstration({"messages": [*TALK, assistant("2")]}) == {
            "prompt": TALK,
            "completion": [assistant("2")],
        }

    def test_what_follows_the_last_answer_is_left_out(self):
        assert demonstration({"messages": [*TALK, assistant("2"), user("Three?")]}) == {
            "prompt": TALK,
            "completion": [assistant("2")],
        }

    def test_plain_text_has_no_prompt(self):
        assert demonstration({"text": "Once."}) == {"prompt": "", "completion": "Once."}

    def test_a_transcript_is_split_before_its_last_answer(self):
        assert demonstration({"text": HH + " 2"}) == {"prompt": HH, "completion": " 2"}

    def test_messages_keep_only_role_and_content(self):
        turn = user("One?") | {"name": "x", "weight": 1}
        row = demonstration({"messages": [turn, assistant("1")]})
        assert row["prompt"] == [user("One?")]

    def test_text_beside_messages_becomes_a_turn(self):
        expected = {"prompt": [user("One?")], "completion": [assistant("1")]}
        assert demonstration({"prompt": "One?", "completion": [assistant("1")]}) == expected
        assert demonstration({"prompt": [user("One?")], "completion": "1"}) == expected


class TestComparisons:
    def test_standard(self):
        row = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
        assert comparison(row) == row

    def test_conversational_with_an_implicit_prompt(self):
        row = {"chosen": [*TALK, assistant("2")], "rejected": [*TALK, assistant("3")]}
        assert comparison(row) == {
            "prompt": TALK,
            "chosen": [assistant("2")],
            "rejected": [assistant("3")],
        }

    def test_a_prompt_as_text_beside_whole_conversations(self):
        whole = [user("One?")]
        row = {
            "prompt": "One?",
            "chosen": [*whole, assistant("1")],
            "rejected": [*whole, assistant("2")],
        }
        assert comparison(row)["prompt"] == whole

    def test_transcripts_are_split_before_the_last_answer(self):
        assert comparison({"chosen": HH + " 2", "rejected": HH + " 22"}) == {
            "prompt": HH,
            "chosen": " 2",
            "rejected": " 22",
        }

    def test_an_implicit_text_prompt_ends_between_words(self):
        row = {"chosen": "The sky is blue.", "rejected": "The sky is black."}
        assert comparison(row) == {
            "prompt": "The sky is",
            "chosen": " blue.",
            "rejected": " black.",
        }

    def test_a_response_that_begins_like_the_other_is_whole(self):
        row = comparison({"chosen": "Say it now", "rejected": "Say it now and here"})
        assert row == {"prompt": "Say it", "chosen": " now", "rejected": " now and here"}

    @settings(deadline=None)
    @given(st.text("ab \n", max_size=12), st.text("ab \n", max_size=12))
    def test_an_implicit_prompt_loses_and_adds_nothing(self, chosen, rejected):
        try:
            row = comparison({"chosen": chosen, "rejected": rejected})
        except BadRowError:
            return
        assert row["prompt"] + row["chosen"] == chosen
        assert row["prompt"] + row["rejected"] == rejected

    def test_annotator_and_margin_are_kept(self):
        row = {"prompt": "a", "chosen": "b", "rejected": "c", "annotator": 7, "margin": "0.5"}
        row |= {"source": "web"}
        kept = {"annotator": "7", "margin": 0.5, "source": "web"}
        assert comparison(row) | kept == comparison(row)

    @pytest.mark.parametrize("margin", [None, "far", "nan", float("inf")])
    def test_a_margin_that_is_no_number_is_none(self, margin):
        row = {"prompt": "a", "chosen": "b", "rejected": "c", "margin": margin}
        assert comparison(row)["margin"] is None


class TestMessages:
    @pytest.mark.parametrize(
        "messages",
        [
            [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "1"}],
            [{"from": "user", "value": "One?"}, {"from": "chatgpt", "value": "1"}],
            json.dumps([user("One?"), assistant("1")]),
            str([user("One?"), assistant("1")]),
            json.dumps([{"from": "human", "value": "One?"}, {"from": "gpt", "value": "1"}]),
            [
                user([{"type": "text", "text": "One"}, {"type": "text", "text": "?"}]),
                assistant("1"),
            ],
            [user([{"type": "text", "text": "One?", "image_url": None}]), assistant("1")],
        ],
    )
    def test_every_shape_is_a_role_and_a_content(self, messages):
        expected = {"prompt": [user("One?")], "completion": [assistant("1")]}
        assert demonstration({"messages": messages}) == expected

    @pytest.mark.parametrize(
        "text",
        ['[{"role": "admin"}]', "[1, 2] role content", "{'role': x, 'content': y}", "[x] is a set"],
    )
    def test_text_that_is_no_conversation_stays_text(self, text):
        row = {"prompt": text, "completion": text}
        assert demonstration(row) == row


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n"])
class TestLineEndings:
    def test_transcripts_are_split_alike(self, ending):
        text = (HH + " 2").replace("\n", ending)
        assert demonstration({"text": text}) == {"prompt": HH, "completion": " 2"}
        assert prompt_of({"prompt": HH.replace("\n", ending)}) == {"prompt": HH}
        other = (HH + " 3").replace("\n", ending)
        assert comparison({"chosen": text, "rejected": other})["prompt"] == HH

    def test_other_text_keeps_them(self, ending):
        row = {"prompt": f"One{ending}", "completion": f"two{ending}"}
        assert demonstration(row) == row


class TestChat:
    def test_turns_of_a_transcript_become_messages(self):
        row = demonstration({"text": HH + " 2 "})
        expected = {"prompt": [*TALK[1:]], "completion": [assistant("2")]}
        assert as_chat(row) == expected

    def test_comparisons_keep_their_other_columns(self):
        row = comparison({"chosen": HH + " 2", "rejected": HH + " 3", "margin": 1, "source": "web"})
        assert as_chat(row) == {
            "prompt": TALK[1:],
            "chosen": [assistant("2")],
            "rejected": [assistant("3")],
            "margin": 1.0,
            "source": "web",
        }

    def test_a_mark_within_a_line_is_content(self):
        text = "\n\nHuman: Write Human: and\nAssistant: too\n\nAssistant:"
        (turn,) = as_chat(prompt_of({"prompt": text}))["prompt"]
        assert turn == user("Write Human: and\nAssistant: too")

    def test_turns_of_one_speaker_are_joined(self):
        text = "\n\nHuman: One?\n\nHuman: Two?\n\nAssistant:"
        assert as_chat({"prompt": text})["prompt"] == [user("One?\n\nTwo?")]

    def test_other_text_is_one_user_message(self):
        assert as_chat({"prompt": " One?\n", "completion": " 1"}) == {
            "prompt": [user("One?")],
            "completion": [assistant("1")],
        }

    def test_messages_are_kept(self):
        row = {"prompt": TALK, "completion": [assistant("2")]}
        assert as_chat(row) is row

    @pytest.mark.parametrize(
        ("prompt", "cause"),
        [
            ("", "text without a prompt"),
            ("\n\nHuman: One?\n\nAssistant:\n\nHuman: Two?", "transcript has an empty turn"),
            ("Human: One?\n\nAssistant: 1", "prompt ends with an assistant turn"),
        ],
    )
    def test_unusable_ones_have_a_cause(self, prompt, cause):
        with pytest.raises(BadRowError, match=cause):
            as_chat({"prompt": prompt, "completion": "1"})


class TestPrompts:
    @pytest.mark.parametrize(
        "row",
        [
            {"prompt": TALK},
            {"messages": TALK},
            {"messages": [*TALK, assistant("2")]},
            {"prompt": TALK, "completion": [assistant("2")]},
            {"chosen": [*TALK, assistant("2")], "rejected": [*TALK, assistant("3")]},
        ],
    )
    def test_conversations_of_every_form(self, row):
        assert prompt_of(row) == {"prompt": TALK}

    @pytest.mark.parametrize(
        "row",
        [
            {"prompt": HH},
            {"text": HH + " 2"},
            {"prompt": HH, "completion": " 2"},
            {"chosen": HH + " 2", "rejected": HH + " 3"},
        ],
    )
    def test_text_of_every_form(self, row):
        assert prompt_of(row) == {"prompt": HH}


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"prompt": "a", "completion": " \n"}, "empty response"),
        ({"prompt": "  ", "completion": "b"}, "empty prompt"),
        ({"prompt": "a", "completion": None}, "completion is missing"),
        ({"prompt": None, "completion": "b"}, "prompt is missing"),
        ({"prompt": 3, "completion": "b"}, "prompt is neither text nor messages"),
        ({"prompt": "a", "completion": "\ud800"}, "completion is not valid Unicode"),
        ({"text": 3}, "text is not text"),
        ({"text": None}, "text is missing"),
        ({"messages": []}, "no assistant turn"),
        ({"messages": [user("a")]}, "no assistant turn"),
        ({"messages": [assistant("a")]}, "no user turn"),
        ({"messages": [user("a"), assistant(" ")]}, "empty response"),
        ({"messages": [user("a"), {"role": "banana", "content": "b"}]}, "unknown role"),
        ({"messages": [user("a"), {"role": ["user"], "content": "b"}]}, "unknown role"),
        ({"messages": [user("a"), assistant(None)]}, "a content in messages is missing"),
        ({"messages": [user("a"), assistant(["b"])]}, "a content in messages is not text"),
        (
            {"messages": [user([{"type": "image", "image": "x.png"}]), assistant("b")]},
            "messages has a content part of type image; only text is read",
        ),
        (
            {
                "messages": "[{'role': 'user', 'content': 'a'}\n {'role': 'assistant', 'content': 'b'}]"
            },
            "messages looks like a conversation as text, but is neither JSON nor a Python list",
        ),
        (
            {"messages": [user("a"), {"from": "function_call", "value": "{}"}]},
            "messages has a function_call that is not JSON with a name and arguments",
        ),
        (
            {
                "messages": [
                    user("a"),
                    {"from": "function_call", "value": '{"name": "f", "arguments": "x"}'},
                ]
            },
            "messages has a function_call whose arguments are not a JSON object",
        ),
        ({"messages": ["a"]}, "messages has a message without role and content"),
        ({"messages": "a"}, "messages is neither text nor messages"),
        (
            {"prompt": [user("a"), assistant("b")], "completion": "c"},
            "prompt ends with an assistant turn",
        ),
        ({"text": HH + " 2\n\nHuman: Three?"}, "transcript ends with a question"),
    ],
)
def test_demonstrations_that_cannot_be_used(row, cause):
    with pytest.raises(BadRowError) as caught:
        demonstration(row)
    assert str(caught.value) == cause


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": " b "}, "chosen equals rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "empty response"),
        ({"chosen": HH + " 2", "rejected": HH + " "}, "empty response"),
        (
            {"chosen": HH + " 2", "rejected": HH.replace("One", "Six") + " 2"},
            "chosen and rejected answer different prompts",
        ),
        (
            {"chosen": [*TALK, assistant("2")], "rejected": [user("Two?"), assistant("3")]},
            "chosen and rejected answer different prompts",
        ),
        ({"chosen": "b", "rejected": None}, "prompt is missing"),
        ({"prompt": " ", "chosen": "b", "rejected": "c"}, "empty prompt"),
        (
            {"chosen": "It is 1.", "rejected": "No idea."},
            "empty prompt: the two texts have no common beginning",
        ),
    ],
)
def test_comparisons_that_cannot_be_used(row, cause):
    with pytest.raises(BadRowError) as caught:
        comparison(row)
    assert str(caught.value) == cause


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"prompt": ""}, "empty prompt"),
        ({"text": "Once."}, "text without a prompt"),
        ({"prompt": [SYSTEM]}, "no user turn"),
        ({"prompt": [user("  ")]}, "empty prompt"),
    ],
)
def test_prompts_that_cannot_be_used(row, cause):
    with pytest.raises(BadRowError) as caught:
        prompt_of(row)
    assert str(caught.value) == cause


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ('{"name": "f", "arguments": {"x": 1}}', ["f"]),
        ('{"name": "f", "arguments": "{\\"x\\": 1}"}', ["f"]),
        ([{"name": "f", "arguments": {"x": 1}}, {"name": "g"}], ["f", "g"]),
    ],
)
def test_a_function_call_of_sharegpt_becomes_a_message_that_calls_tools(value, names):
    turns = [{"from": "human", "value": "a"}, {"from": "function_call", "value": value}]
    row = demonstration({"messages": turns})
    [call] = row["completion"]
    calls = fields_of(call)["tool_calls"]
    assert (call["role"], call["content"]) == ("assistant", "")
    assert [one["function"]["name"] for one in calls] == names
    assert calls[0] == {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def test_turns_after_a_function_call_answer_it():
    turns = [
        {"from": "human", "value": "a"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "It is 3."},
    ]
    row = demonstration({"messages": turns})
    assert [turn["role"] for turn in row["prompt"]] == ["user", "assistant", "tool"]
    assert row["completion"] == [assistant("It is 3.")]


GUANACO = "### Human: One?### Assistant: 1### Human: Two?### Assistant:"


def test_transcripts_of_guanaco_are_split_before_the_last_answer():
    row = demonstration({"text": GUANACO + " 2"})
    assert row == {"prompt": GUANACO, "completion": " 2"}
    assert prompt_of({"text": GUANACO + " 2"}) == {"prompt": GUANACO}
    turns = [user("One?"), assistant("1"), user("Two?")]
    assert as_chat(row) == {"prompt": turns, "completion": [assistant("2")]}
    with pytest.raises(BadRowError, match="transcript ends with a question"):
        demonstration({"text": GUANACO + " 2### Human: Three?"})
