"""Conversion of errors to messages and exit codes."""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rlhfctl.cli.help import Group, overview
from rlhfctl.errors import (
    DiskFullError,
    EnvironmentFault,
    ExitCode,
    LostProcessFault,
    OutOfMemoryFault,
    RlhfctlError,
)
from rlhfctl.run import exit_status, stop
from rlhfctl.run.disk import free_bytes
from rlhfctl.run.stop import RESUMPTION, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HUB_ERRORS = {
    "HfHubHTTPError",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "DatasetNotFoundError",
    "ConnectionError",
    "HTTPError",
}
_ERROR_KEYS = ("exit_code", "type", "message", "where", "hint")
_HUB_PACKAGES = {"builtins", "datasets", "httpx", "httpx2", "huggingface_hub"}


class Interrupted(BaseException):
    """Ctrl-C. Wrapped because Typer would exit without a message."""


class Boundary(Group):
    """The command group. All exceptions that leave a command are reported here."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run a command and exit with its code."""
        arguments = sys.argv[1:] if args is None else list(args)
        extra["standalone_mode"] = False
        try:
            code = super().main(args, *rest, **extra)
        except SystemExit:
            raise
        except BaseException as error:
            # What follows a stop that nobody caught is its consequence, whatever error it is.
            shown = stop.uncaught() or error
            if isinstance(shown, Stopped):
                stop.begin(shown.number)
            code = explain(shown, as_json="--json" in arguments, debug="--debug" in arguments)
        exit_status.leave(code or 0)
        sys.exit(code)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the command; without any, print the overview.

        Raises:
            typer.Exit: There are no arguments.
        """
        if not args and not ctx.resilient_parsing:
            commands = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
            typer.echo(overview(self.help or "", commands))
            raise typer.Exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error


def explain(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Report an error to the user, or to the launching process; return the exit code."""
    code, message = classify(error)
    trace = "".join(traceback.format_exception(error)) if debug else ""
    if exit_status.expected():
        exit_status.leave(code, message, describe(error), trace)
    else:
        show_error(message, describe(error), trace, as_json=as_json)
    return code


def show_error(message: str, described: dict[str, Any], trace: str = "", *, as_json: bool) -> None:
    """Print an error.

    Args:
        message: Error message; empty if it was already shown.
        described: The error as JSON values, as `describe` returns them.
        trace: Traceback, for ``--debug``; else empty.
        as_json: Print the errors to stdout.
    """
    from rlhfctl.console import Terminal

    terminal = Terminal(as_json=as_json)
    if trace:
        terminal.traceback(trace)
    if message:
        terminal.error(message)
    if as_json:
        terminal.write_json({"ok": False, "errors": listed(described)})


def describe(error: BaseException) -> dict[str, Any]:
    """Return an error as JSON values, with the errors that it lists under `details`."""
    code, message = classify(error)
    recognised = recognise(error)
    described: dict[str, Any] = {
        "exit_code": int(code),
        "type": getattr(recognised, "kind", "") or type(recognised or error).__name__,
        "message": recognised.what if recognised else message,
        "where": recognised.where if recognised else "",
        "hint": recognised.hint if recognised else "",
    }
    details = recognised.details if recognised else ()
    described["details"] = [
        {"message": detail.what, "where": detail.where, "hint": detail.hint} for detail in details
    ]
    return described


def listed(described: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the errors of a described error, one entry each, as ``--json`` prints them."""
    single = {key: described[key] for key in _ERROR_KEYS if key in described}
    return [single | detail for detail in described.get("details") or [{}]]


def classify(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the message of an error."""
    recognised = recognise(error)
    if recognised is not None:
        return recognised.exit_code, str(recognised)
    if isinstance(error, Interrupted):
        return ExitCode.INTERRUPTED, f"interrupted; {RESUMPTION}"
    if isinstance(error, Stopped):
        return error.exit_code, str(error)
    parsing: Callable[[], str] | None = getattr(error, "format_message", None)
    if parsing is not None:
        # Typer validates values by pydantic, whose prefix says nothing to a user.
        return ExitCode.USAGE, _usage(error, parsing().replace(": Value error, ", ": "))
    summary = "".join(traceback.format_exception_only(error)).strip()
    return ExitCode.INTERNAL, f"internal error: {summary}\n--debug shows the traceback"


def recognise(error: BaseException) -> RlhfctlError | None:
    """Return the user-facing error behind an exception, if there is one.

    Libraries wrap exceptions, so the whole chain of causes is searched, outermost first.
    """
    for link in _chain(error):
        if isinstance(link, RlhfctlError):
            return link
        for detect in (_memory, _disk, _permission, _lost_process):
            fault = detect(link)
            if fault is not None:
                return fault
        if _is(link, _HUB_ERRORS, _HUB_PACKAGES) and not isinstance(link, BrokenPipeError):
            return _hub(error if isinstance(error, OSError) else link)
    return None


def _memory(error: BaseException) -> RlhfctlError | None:
    text = str(error)
    if (
        isinstance(error, MemoryError)
        or _is(error, {"OutOfMemoryError"}, {"torch"})
        or (isinstance(error, RuntimeError) and "can't allocate memory" in text)
    ):
        first = text.splitlines()[0] if text else "an allocation failed"
        return OutOfMemoryFault(
            f"out of memory: {first}",
            hint="go on with the same command and --set auto_batch=true, which halves the rows per "
            "forward pass; or lower max_length, or set model.quantization=4bit",
        )
    return None


def _disk(error: BaseException) -> RlhfctlError | None:
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    if full or "No space left on device" in str(error):
        where = str(error.filename or "") if isinstance(error, OSError) else ""
        return DiskFullError(
            f"the disk is full{_left(where)}",
            where=where,
            hint="free some space, then re-run the command; finished stages are kept",
        )
    return None


def _left(where: str) -> str:
    """Return how much of a file's disk is left, where that is known."""
    try:
        return f": {free_bytes(Path(where)):,} bytes are free" if where else ""
    except (OSError, StopIteration):
        return ""


def _hub(error: BaseException) -> RlhfctlError:
    text = str(error).strip() or type(error).__name__
    return EnvironmentFault(
        f"the request to the Hugging Face Hub failed: {text.splitlines()[0]}",
        hint="check the name and the network connection; offline, use a local path, or a cached "
        "copy with HF_HUB_OFFLINE=1",
    )


def _permission(error: BaseException) -> RlhfctlError | None:
    if isinstance(error, OSError) and error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return EnvironmentFault(
            f"access denied: {error.strerror}",
            where=str(error.filename or ""),
            hint="change the permissions, or choose another path",
        )
    return None


def _lost_process(error: BaseException) -> RlhfctlError | None:
    """Detect the errors that torch's collectives raise when a peer process is gone.

    Gloo raises a plain RuntimeError that contains the path of its source file.
    """
    gloo = isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    if gloo or _is(error, {"DistBackendError", "DistNetworkError"}, {"torch"}):
        return LostProcessFault(
            f"lost the connection to another process of this command: {str(error).splitlines()[0]}",
            hint="see the launcher's output for the cause; re-running the command resumes from the "
            "last checkpoint",
        )
    return None


def _is(error: BaseException, names: set[str], packages: set[str]) -> bool:
    """Return whether an exception has one of these class names, without importing its package."""
    return any(
        kind.__name__ in names and kind.__module__.partition(".")[0] in packages
        for kind in type(error).__mro__
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _usage(error: BaseException, message: str) -> str:
    """Return Typer's usage error with suggestions; empty if it printed the help page."""
    possibilities = getattr(error, "possibilities", None)
    if possibilities:
        message = f"{getattr(error, 'message', message)}; did you mean {_either(possibilities)}?"
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "rlhfctl")
    return f"{message}\n`{command} --help` lists the options" if message else ""


def _either(words: Sequence[str]) -> str:
    return " or ".join(sorted(words))
