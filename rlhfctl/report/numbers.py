"""Formatting of metrics for readers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rlhfctl.results.estimate import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

MINUS = "\N{MINUS SIGN}"
MISSING = "–"


def finite(value: Any) -> float | None:
    """Return the value as a float; None if it is no number, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number(value: Any) -> str:
    """Write a metric with about three significant digits, whole numbers whole."""
    figure = finite(value)
    if figure is None:
        return MISSING
    size = abs(figure)
    if isinstance(value, int) or size >= 1000:
        text = f"{figure:,.0f}"
    elif size >= 100:
        text = f"{figure:.0f}"
    elif size >= 10:
        text = f"{figure:.1f}"
    elif size >= 1:
        text = f"{figure:.2f}"
    elif size >= 0.001:
        text = f"{figure:.3f}"
    else:
        text = scientific(figure) if size else "0"
    return text.replace("-", MINUS)


def scientific(figure: float) -> str:
    """Write a very large or small number as ``3.5e-4``, without padding its exponent."""
    mantissa, exponent = f"{figure:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)


def share(value: Any) -> str:
    """Write a win rate or an accuracy with two decimals."""
    return _fixed(value, 2)


def fraction(value: Any) -> str:
    """Write a share that may lie close to 0 or 1, with three decimals."""
    return _fixed(value, 3)


def signed(value: Any, write: Callable[[Any], str] = number) -> str:
    """Write a difference with its sign, in the format of its metric."""
    figure, text = finite(value), write(value)
    return f"+{text}" if figure is not None and figure > 0 else text


def value_of(estimate: Estimate | None) -> float | None:
    """Return an estimate's value; None without one, or if it is NaN or infinite."""
    return None if estimate is None else finite(estimate.value)


def as_estimate(metric: Estimate | float | None) -> Estimate | None:
    """Return a plain number as an estimate without an interval."""
    return metric if isinstance(metric, Estimate) or metric is None else Estimate(metric)


def interval(estimate: Estimate | None, write: Callable[[Any], str] = number) -> str:
    """Write an estimate's 95 % CI; empty if it has none."""
    if estimate is None or finite(estimate.low) is None or finite(estimate.high) is None:
        return ""
    return f"{write(estimate.low)} to {write(estimate.high)}"


def _fixed(value: Any, decimals: int) -> str:
    figure = finite(value)
    if figure is None:
        return MISSING
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(figure, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def size_of(value: Any) -> str:
    """Write a number of bytes in MB, or in GB from 1 GB on (powers of ten)."""
    figure = finite(value)
    if figure is None:
        return MISSING
    return f"{figure / 1e9:.1f} GB" if figure >= 1e9 else f"{figure / 1e6:.0f} MB"


def duration(seconds: Any) -> str:
    """Write a time in its two largest units."""
    figure = finite(seconds)
    if figure is None:
        return MISSING
    whole = round(figure)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
