from rlhfctl.world.documents import ASSISTANT, CHECK, END, USER, sample_document
from rlhfctl.world.gold import gold_features
from rlhfctl.world.streams import stream


def documents(count: int):
    rng = stream("documents under test")
    return [sample_document(rng) for _ in range(count)]


def marked(count: int):
    """Prompt, response, whether it is learnt, and verdict of each marked exchange."""
    for document in documents(count):
        if len(document) == 3:
            asked, response, verdict = document
            prompt = asked.text.removeprefix(USER).removesuffix(END + ASSISTANT)
            said = verdict.text.removeprefix(USER + CHECK + END + ASSISTANT)
            yield prompt, response.text.removesuffix(END), response.learnt, said


def test_verdicts_are_true_and_wrong_responses_are_not_learnt():
    verdicts = list(marked(3_000))
    assert len(verdicts) > 1_000
    for prompt, response, learnt, said in verdicts:
        right = gold_features(prompt, response).correctness == 1.0
        assert said.startswith("Yes.") == right
        assert learnt == right
    share = sum(learnt for _, _, learnt, _ in verdicts) / len(verdicts)
    assert 0.45 < share < 0.55


def test_every_document_ends_and_has_something_to_learn():
    for document in documents(500):
        assert document[-1].text.endswith(END)
        assert document[-1].learnt
