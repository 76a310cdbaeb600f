"""An error that a library wrapped is still recognised, and a bug is not mistaken for one."""

import errno
import os
import signal
import time

import pytest
import typer

from rlhfctl.cli.boundary import Boundary, classify, describe, listed
from rlhfctl.errors import DataError, ErrorDetail, ExitCode
from rlhfctl.run import stop
from tests import forked


def wrapped(error, *around):
    for outer in around:
        try:
            raise outer from error
        except type(outer) as caught:
            error = caught
    return error


def hub_error():
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download("nobody/nothing", "config.json")
    except Exception as error:
        return error
    raise AssertionError("the hub was reached from a test")


def test_a_hub_that_cannot_be_reached_is_the_environments_fault():
    code, message = classify(hub_error())
    assert code == ExitCode.ENVIRONMENT
    assert "HF_HUB_OFFLINE" in message


def test_transformers_own_words_are_kept():
    around = OSError("We couldn't connect to the hub to load nobody/nothing\nmore")
    code, message = classify(wrapped(hub_error(), around))
    assert code == ExitCode.ENVIRONMENT
    assert "to load nobody/nothing" in message
    assert "more" not in message


def test_a_data_set_that_is_not_on_the_hub_is_the_environments_fault():
    from datasets import load_dataset

    with pytest.raises(Exception) as caught:
        load_dataset("nobody/nothing")
    assert classify(caught.value)[0] == ExitCode.ENVIRONMENT


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "full", "a"), ExitCode.DISK_FULL),
        (OSError(errno.EDQUOT, "quota", "a"), ExitCode.DISK_FULL),
        (RuntimeError("I/O error: No space left on device (os error 28)"), ExitCode.DISK_FULL),
        (OSError(errno.EROFS, "read only", "a"), ExitCode.ENVIRONMENT),
        (PermissionError(errno.EACCES, "denied", "a"), ExitCode.ENVIRONMENT),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
            ExitCode.OUT_OF_MEMORY,
        ),
        (DataError("bad row"), ExitCode.DATA),
    ],
)
def test_what_happened_is_found_below_what_wrapped_it(error, code):
    assert classify(error)[0] == code
    assert classify(wrapped(error, ValueError("outer"), RuntimeError("outermost")))[0] == code


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), FileNotFoundError("x"), BrokenPipeError("x")]
)
def test_a_bug_is_called_one(error):
    code, message = classify(error)
    assert code == ExitCode.INTERNAL
    assert "--debug" in message


def test_a_torch_error_by_its_real_class():
    torch = pytest.importorskip("torch")
    assert classify(torch.OutOfMemoryError("CUDA out of memory"))[0] == ExitCode.OUT_OF_MEMORY


def test_a_described_error_has_all_its_parts():
    assert describe(DataError("empty", where="a.jsonl:3", hint="fill it")) == {
        "exit_code": 3,
        "type": "DataError",
        "message": "empty",
        "where": "a.jsonl:3",
        "hint": "fill it",
        "details": [],
    }


def test_an_error_that_lists_several_is_printed_as_several():
    details = (ErrorDetail("empty", "a:1"), ErrorDetail("too long", "a:2", "shorten it"))
    described = describe(DataError("empty\ntoo long", details=details))
    common = {"exit_code": 3, "type": "DataError"}
    assert listed(described) == [
        {**common, "message": "empty", "where": "a:1", "hint": ""},
        {**common, "message": "too long", "where": "a:2", "hint": "shorten it"},
    ]
    assert listed(describe(DataError("empty", "a:1"))) == [
        {**common, "message": "empty", "where": "a:1", "hint": ""}
    ]


def test_a_value_that_is_no_choice_is_refused_in_plain_words(tmp_path):
    done = forked.rlhfctl(tmp_path, ["sample", "--stage", "other", "--prompt", "x"])
    assert done.returncode == ExitCode.USAGE
    assert "Invalid value for '--stage': 'other' is not one of 'base', 'sft', 'ppo'" in done.stderr


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGTERM, ImportError("cannot load module more than once per process")),
        (signal.SIGINT, DataError("the function cannot be imported")),
    ],
)
def test_an_error_in_the_place_of_a_stop_is_the_stop(number, error, capfd):
    """An import that the signal cut short fails when something tries it again."""
    app = typer.Typer(cls=Boundary)

    @app.command()
    def work():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except stop.Stopped:
            raise error from None

    @app.command()
    def other(): ...

    with stop.handled(), pytest.raises(SystemExit) as ended:
        app(["work"])
    assert ended.value.code == 128 + number
    said = capfd.readouterr().err
    assert str(error) not in said
    assert "finished stages are kept" in " ".join(said.split())
