"""What the index of a library says of one network."""

from __future__ import annotations

import builtins
import dataclasses
import json
import math
import sys
from dataclasses import dataclass
from typing import Any

from scotl_matgl.plugin import ACTIVATIONS
from scotl_matgl_shotgun.errors import LibraryError


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of ``index.jsonl``.

    Attributes
    ----------
    name : str
        Unique in the library.
    property, unit : str
        What it was trained to predict, and in which unit.
    descriptor, fingerprint : str
        Registered name of the composition descriptor that it reads, and that descriptor's ``fingerprint()``; an empty
        fingerprint is not compared.
    dataset : str
        What it was trained on.
    error : float, optional
        Mean absolute error on held-out materials, in `unit`.
    widths : tuple of int
        Of the input, of every hidden layer and of the output.
    activation : {"leaky_relu", "relu", "silu", "identity"}
    seed, n_train : int, optional
        Of its random choices; number of training rows.
    shard, sha256, prefix : str
        File of its tensors in the library, that file's hash, and what their names begin with.
    """

    name: str
    property: str
    unit: str
    descriptor: str
    dataset: str
    widths: tuple[int, ...]
    activation: str
    fingerprint: str = ""
    error: float | None = None
    seed: int | None = None
    n_train: int | None = None
    shard: str = ""
    sha256: str = ""
    prefix: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        who = f"network {self.name!r}"
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.type == "str" and not isinstance(value, str):
                raise LibraryError(f"{who}: {item.name} is {value!r}; it must be a text")
        if len(self.widths) < 3 or not all(type(width) is int and width > 0 for width in self.widths):
            raise LibraryError(f"{who}: widths are {self.widths}; they must be of input, hidden layers and output")
        if self.activation not in ACTIVATIONS:
            raise LibraryError(f"{who}: activation is {self.activation!r}, not one of {', '.join(ACTIVATIONS)}")
        if self.error is not None and not (math.isfinite(self.error) and self.error >= 0):
            raise LibraryError(f"{who}: error is {self.error!r}; it must be a number of at least 0, or left out")

    @builtins.property  # the field `property` hides the built-in here
    def n_parameters(self) -> int:
        """Weights and biases."""
        return sum((a + 1) * b for a, b in zip(self.widths, self.widths[1:], strict=False))

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values."""
        return vars(self) | {"widths": list(self.widths)}

    def to_json(self) -> str:
        """One line of JSON, without its end."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Read one line of JSON.

        Raises
        ------
        LibraryError
            If it is not JSON, or fields are wrong, unknown or missing.
        """
        try:
            # Of very many records most texts are the same ones.
            data: Any = json.loads(line, object_hook=_interned)
            return cls(**data)
        except LibraryError:
            raise
        except (TypeError, ValueError) as error:  # not JSON, no mapping, or other fields
            raise LibraryError(f"it is no record of a network: {error}") from error


def _interned(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: sys.intern(value) if type(value) is str else value for key, value in fields.items()}
