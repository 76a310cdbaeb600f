import re
from collections.abc import Iterator

from rlhfctl.world.documents import ASSISTANT, CHECK, END, USER, Document, sample_documents
from rlhfctl.world.gold import gold_features
from rlhfctl.world.lexicon import NAMES
from rlhfctl.world.streams import stream


def documents(count: int) -> list[Document]:
    rng = stream("documents under test")
    return [document for _ in range(count) for document in sample_documents(rng)]


def marked(count: int) -> Iterator[tuple[str, str, bool, str]]:
    """Prompt, response, whether it is learnt, and verdict of each marked exchange."""
    for document in documents(count):
        if document[0].text.startswith(USER) and document[-1].role == "verdict":
            asked, response, verdict = document
            prompt = asked.text.removeprefix(USER).removesuffix(END + ASSISTANT)
            said = verdict.text.removeprefix(USER + CHECK + END + ASSISTANT)
            yield prompt, response.text.removesuffix(END), response.role != "read", said


def test_verdicts_are_true_and_wrong_responses_are_not_learnt():
    verdicts = list(marked(1_500))
    assert len(verdicts) > 1_000
    for prompt, response, learnt, said in verdicts:
        right = gold_features(prompt, response).correctness == 1.0
        assert said.startswith("Yes.") == right
        assert learnt == right


def test_right_and_wrong_verdicts_are_balanced():
    said = [segment for document in documents(2_000) for segment in document]
    verdicts = [segment.text for segment in said if segment.role == "verdict"]
    share = sum("Yes." in text for text in verdicts) / len(verdicts)
    assert 0.47 < share < 0.53


def test_claims_about_facts_are_marked_truly():
    checked = 0
    for document in documents(3_000):
        facts, *rest = document
        if facts.text.startswith(NAMES) and rest[-1].role == "verdict":
            for claim, verdict in zip(rest[::2], rest[1::2], strict=True):
                coloured = re.fullmatch(r"The (\w+) is (\w+)\..*", claim.text)
                if coloured:
                    thing, colour = coloured.groups()
                    true = f"a {colour} {thing}" in facts.text
                    assert verdict.text.startswith("Yes." if true else "No.")
                    checked += 1
    assert checked > 100


def test_every_document_ends_and_has_something_to_learn():
    for document in documents(500):
        assert document[-1].text.endswith(END)
        assert any(segment.role != "read" for segment in document)
