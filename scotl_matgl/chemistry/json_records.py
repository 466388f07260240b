"""Records of a JSON file, decoded one by one, so that a bad one does not cost the others.

Only Python's own decoder of plain JSON is used, and never a hook that makes objects of what a file names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scotl_matgl.chemistry.reading import ReadingLimits, how_to_raise
from scotl_matgl.chemistry.refusals import StructureError

#: Lists of records in an answer of the Materials Project, OQMD or OPTIMADE, and the rows of Matbench.
_CONTAINERS = ("data", "response", "results")

#: A text of very many objects that do not end would be searched to its end for each of them.
_MOST_UNCLOSED = 20

_BLANK = re.compile(r"[ \t\r\n]*")
_MARK = re.compile(r'["{}\[\]]')
_SCALAR_END = re.compile(r"[,\]}\s]")


@dataclass(frozen=True)
class Fault:
    """Why there is no record: what is wrong with its text."""

    reason: str


def json_records(text: str, limits: ReadingLimits) -> Iterator[Any]:
    """Records of a JSON text.

    Parameters
    ----------
    text : str
        One record; a list of them; an object with such a list under ``data``, ``response`` or ``results``; Matbench's
        ``{"index": ..., "columns": ..., "data": ...}``; or JSON lines.
    limits : ReadingLimits
        How long a record may be.

    Yields
    ------
    object
        A value of JSON for each record, or a `Fault`.

    Raises
    ------
    StructureError
        If the text does not begin as JSON does.
    """
    scanner = _Scanner(text, limits)
    at = scanner.blank(0)
    if text[at : at + 1] not in ("[", "{"):
        raise StructureError("it is not valid JSON: a list or an object is needed")
    while at < len(text):
        if text[at] == "[":
            at = yield from scanner.elements(at)
        elif text[at] == "{":
            at = yield from scanner.members(at)
        else:
            yield Fault("this line is not valid JSON: an object is needed")
            at = scanner.next_record(at)
        at = scanner.blank(at)


class _Scanner:
    """Finds and decodes the values of a JSON text, so many characters at a time."""

    def __init__(self, text: str, limits: ReadingLimits) -> None:
        self._text = text
        self._longest = int(limits.max_record_megabytes * 1e6)
        self._decode = json.JSONDecoder().raw_decode
        # The decoder sees a window of the text, so that a value of a whole file is not built before it is refused.
        # Not of a text of moderate length: cutting windows takes time, too.
        short = len(text) <= 6 * self._longest
        self._window, self._base, self._reach = (text, 0, len(text)) if short else ("", 0, 0)
        self._unclosed = 0

    def blank(self, at: int) -> int:
        match = _BLANK.match(self._text, at)
        return match.end() if match else at

    def next_record(self, at: int) -> int:
        """Position of the next line that begins with an object, as in JSON lines."""
        end = self._text.find("\n{", at)
        return len(self._text) if end < 0 else end + 1

    def value(self, at: int) -> tuple[Any, int]:
        """Value that begins at a position and the position behind it; a `Fault`, and where it ends, or -1."""
        if not self._base <= at < self._reach:
            self._base, self._window = at, self._text[at : at + 2 * self._longest]
            self._reach = at + self._longest
        whole = self._base + len(self._window) >= len(self._text)
        try:
            value, end = self._decode(self._window, at - self._base)
        except json.JSONDecodeError as error:
            end = self.skip(at)
            if not whole and not 0 <= end - at <= self._longest:
                return Fault(self._too_long), end
            return Fault(f"it is not valid JSON ({error.msg}): is it complete?"), end
        except RecursionError:
            return Fault("its JSON is nested too deep: no crystal needs more than a few levels"), self.skip(at)
        except ValueError:  # Python refuses whole numbers of more than 4,300 digits
            return Fault("it holds a number of thousands of digits: correct the file"), self.skip(at)
        except MemoryError:
            return Fault("there is not enough memory for it: make the file smaller"), self.skip(at)
        if end - (at - self._base) > self._longest:
            return Fault(self._too_long), (self._base + end if whole else self.skip(at))
        return value, self._base + end

    @property
    def _too_long(self) -> str:
        return f"it is longer than {self._longest / 1e6:g} MB: {how_to_raise('max_record_megabytes')}"

    def skip(self, at: int) -> int:
        """Position behind a value that was not decoded, by its brackets; -1 if they do not close."""
        text, closers = self._text, list[str]()
        if text[at : at + 1] not in ("[", "{", '"'):
            match = _SCALAR_END.search(text, at)
            return match.start() if match and match.start() > at else -1
        while True:
            match = _MARK.search(text, at)
            if match is None:
                return -1
            at = match.end()
            if match[0] == '"':
                at = self._behind_string(at)
                if at < 0:
                    return -1
            elif match[0] in "[{":
                closers.append("]" if match[0] == "[" else "}")
            elif closers.pop() != match[0]:
                return -1
            if not closers:
                return at

    def _behind_string(self, at: int) -> int:
        line_end = self._text.find("\n", at)  # a string of JSON holds no line break
        while True:
            at = self._text.find('"', at, line_end if line_end >= 0 else None)
            if at < 0:
                return -1
            slashes = at
            while self._text[slashes - 1] == "\\":
                slashes -= 1
            at += 1
            if (at - 1 - slashes) % 2 == 0:
                return at

    def elements(self, at: int) -> Generator[Any, None, int]:
        """Yield the values of a list; return the position behind it."""
        at = self.blank(at + 1)
        if self._text[at : at + 1] == "]":
            return at + 1
        while True:
            value, end = self.value(at)
            yield value
            if end < 0:
                return len(self._text)
            at = self.blank(end)
            mark = self._text[at : at + 1]
            if mark == "]":
                return at + 1
            if mark != ",":
                yield Fault("the list is not valid JSON from here on: is the file complete?")
                return len(self._text)
            at = self.blank(at + 1)

    def members(self, at: int) -> Generator[Any, None, int]:
        """Yield the record that an object is, or the records of a list in it; return the position behind it."""
        start, known, later, is_list = at, dict[str, Any](), -1, False
        at = self.blank(at + 1)
        while self._text[at : at + 1] != "}":
            key, end = self.value(at) if self._text[at : at + 1] == '"' else (None, -1)
            at = self.blank(end) if end >= 0 else len(self._text)
            if not isinstance(key, str) or self._text[at : at + 1] != ":":
                return (yield from self._broken(start))
            at = self.blank(at + 1)
            if key in _CONTAINERS and not is_list and self._holds_records(at):
                is_list = True
                if self._text[self.blank(at + 1)] == "[" and "columns" not in known:
                    later, end = at, self.skip(at)  # the names of its columns come behind it
                else:
                    end = yield from self._rows(at, known)
            else:
                known[key], end = self.value(at)
            at = self.blank(end) if end >= 0 else len(self._text)
            mark = self._text[at : at + 1]
            if mark not in (",", "}") or not mark:
                return (yield from self._broken(start))
            at = self.blank(at + 1) if mark == "," else at
        if later >= 0:
            yield from self._rows(later, known)
        elif not is_list:
            faults = [value for value in known.values() if isinstance(value, Fault)]
            yield faults[0] if faults else known
        return at + 1

    def _holds_records(self, at: int) -> bool:
        first = self.blank(at + 1)
        return self._text[at : at + 1] == "[" and self._text[first : first + 1] in ("{", "[")

    def _rows(self, at: int, known: Mapping[str, Any]) -> Generator[Any, None, int]:
        """Yield the records of a list, rows of a table being put together with the names of their columns."""
        columns, index = known.get("columns"), known.get("index")
        reader = self.elements(at)
        row = 0
        while True:
            try:
                value = next(reader)
            except StopIteration as done:
                return int(done.value)
            if isinstance(value, list):
                if not isinstance(columns, list) or len(columns) != len(value):
                    value = Fault("its row does not fit the 'columns' of the table")
                else:
                    value = dict(zip(map(str, columns), value, strict=True))
                    if isinstance(index, list) and row < len(index):
                        value.setdefault("id", index[row])
            row += 1
            yield value

    def _broken(self, start: int) -> Generator[Any, None, int]:
        """Yield that an object is broken; return where the next one may begin."""
        yield Fault("it is not valid JSON: is the file complete?")
        end = self.skip(start)
        if end >= 0:
            return end
        self._unclosed += 1
        if self._unclosed > _MOST_UNCLOSED:
            yield Fault(f"more than {_MOST_UNCLOSED} records do not end: nothing behind this one is read")
            return len(self._text)
        return self.next_record(start)
