"""Words and checks that every module shares: names, counts, parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.exceptions import InputError

Floats: TypeAlias = NDArray[np.float64]

#: Called with (done, total) steps.
Progress: TypeAlias = Callable[[int, int], None]


def counted(number: int, noun: str) -> str:
    """Number and noun, as a message has them: ``1 row``, ``3 rows``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise unless a parameter is a whole number of at least so much."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}")


#: Name of the control: the target learned from descriptors alone.
NO_TRANSFER = "no transfer"


def listing(names: Sequence[str], most: int = 6) -> str:
    """Names separated by commas, the first of them where they are many."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
