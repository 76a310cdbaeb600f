"""Progress of `from_pretrained`: bytes of a download, then weights, published as the activity."""

from __future__ import annotations

import io
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from tqdm.std import tqdm
from transformers.utils import logging

from rlhfctl import activity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _PublishedBar(tqdm):  # type: ignore[misc]
    """A progress bar of huggingface_hub or transformers that is published instead of drawn."""

    monitor_interval = 0  # no thread that redraws
    label: ClassVar[str] = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._bytes = options.get("unit") == "B"
        # The environment of a command disables bars, and only a bar's own options enable one again.
        super().__init__(*args, **{**options, "disable": False, "file": io.StringIO()})

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Publish the count. Bars that count files are beside one that counts their bytes."""
        del msg, pos
        if self._bytes:
            activity.publish(f"downloading {self.label}", self.n, self.total, activity.BYTES)
        elif not self.desc.startswith(("Fetching", "Downloading")):
            activity.publish(f"loading {self.label}", self.n, self.total, "weights")
        return True


@contextmanager
def published(label: str) -> Iterator[dict[str, Any]]:
    """Publish the download and the loading of a model within the context.

    Args:
        label: Name of the model.

    Yields:
        Further arguments of `from_pretrained`.
    """
    activity.publish(f"loading {label}")
    set_hook: Callable[..., Any] | None = getattr(logging, "set_tqdm_hook", None)
    if set_hook is None:  # transformers before 5.23 has neither the hook nor the argument
        yield {}
        activity.clear()
        return
    bar = type("_Bar", (_PublishedBar,), {"label": label})
    before = set_hook(partial(_replaced, bar))
    try:
        yield {"tqdm_class": bar}
    finally:
        set_hook(before)
        activity.clear()


def _replaced(
    bar: type[_PublishedBar], factory: object, args: tuple[Any, ...], options: dict[str, Any]
) -> _PublishedBar:
    del factory
    return bar(*args, **options)
