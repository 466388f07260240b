"""Files of this package: where they are kept, how they are written whole, and how tensors with a header are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import platform
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scotl_matgl.exceptions import StoredFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Read = TypeVar("Read")

#: Environment variable: bytes that a tensor file may have at most before it is read. Default: 4 GiB.
MAX_BYTES_VARIABLE = "SCOTL_MATGL_MAX_FILE_BYTES"

_MAX_BYTES = 4 * 2**30

# The header of a tensor file is JSON, which takes about ten times its length in memory.
_MAX_HEADER = 32 * 2**20
_MAX_RECORD = 64 * 2**20

# What `write_whole` calls a file that is not finished. The name is cut, because names have 255 bytes at most.
_PARTIAL = re.compile(r"\..*\.[0-9a-f]{32}\.partial")

# A partial file that cannot be locked (on some network file systems) is left alone until it is so old, in seconds.
_OLD = 86_400.0


def home() -> Path:
    """Folder for everything this package keeps: ``SCOTL_MATGL_HOME``, else the platform's cache folder."""
    value = os.environ.get("SCOTL_MATGL_HOME")
    if value:
        return Path(value).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("scotl_matgl")


# -- writing --------------------------------------------------------------------------------------------------------


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, also when several processes or threads write it at once.

    Parameters
    ----------
    path : path
        Folders above it are made. A symbolic link is replaced, not followed; a device or a pipe is written to.
    content : bytes
        If writers differ, the last one to finish wins.

    Raises
    ------
    OSError
        If it cannot be written, e.g. because the disk is full. What was there before is still there.

    Notes
    -----
    What a killed writer left in the folder is removed, see :func:`sweep`.
    """
    if _is_device(path):
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent, os.getpid())
    with _named(path), _partial_file(path) as (partial, file):
        file.write(content)
        file.flush()
        with contextlib.suppress(OSError):  # who may read the old file may read the new one, and nobody else
            old = path.lstat()
            if stat.S_ISREG(old.st_mode):
                partial.chmod(stat.S_IMODE(old.st_mode))
        partial.replace(path)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Have errors name the file that was to be written: those of a full disk name none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def _partial_file(path: Path) -> Iterator[tuple[Path, Any]]:
    """A new locked file beside `path`; it is gone at the end unless it was renamed."""
    while True:
        # A name of its own for each writer: with a shared one, the first to finish would publish the other's half.
        partial = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}.partial")
        with partial.open("xb") as file:
            # The lock tells a sweeper that the writer lives; between open and lock it may have been swept.
            lock_file(file, wait=False)
            if os.fstat(file.fileno()).st_nlink == 0:
                continue
            try:
                yield partial, file
            finally:
                partial.unlink(missing_ok=True)
            return


def _is_device(path: Path) -> bool:
    """Whether a path is a pipe, a socket or a device such as /dev/stdout, which nothing may replace."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def lock_file(file: Any, *, wait: bool = True) -> bool:
    """Lock an open file against other processes until it is closed, or its process ends.

    Parameters
    ----------
    file : file object
        Opened for writing.
    wait : bool, default=True
        Whether to wait for whoever has it locked.

    Returns
    -------
    bool
        False if another has it locked. True also where there are no locks (Windows, some network file systems).
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def sweep(folder: Path) -> list[Path]:
    """Remove what killed writers left in a folder: unfinished files that no living process holds.

    Parameters
    ----------
    folder : path
        May be missing.

    Returns
    -------
    list of path
        What was removed.
    """
    removed: list[Path] = []
    try:
        entries = [entry.name for entry in os.scandir(folder) if _PARTIAL.fullmatch(entry.name)]
    except OSError:
        return removed
    for name in entries:
        path = folder / name
        with contextlib.suppress(OSError), _open_regular(path, os.O_RDWR) as file:
            held_by_none = _has_locks() and lock_file(file, wait=False)
            if held_by_none or time.time() - os.fstat(file.fileno()).st_mtime > _OLD:
                path.unlink()
                removed.append(path)
    return removed


@lru_cache(maxsize=256)
def _sweep_once(folder: Path, process: int) -> None:  # noqa: ARG001 - a forked process sweeps for itself
    sweep(folder)


def _has_locks() -> bool:
    try:
        import fcntl  # noqa: F401 - not on Windows
    except ImportError:
        return False
    return True


# -- hashes ---------------------------------------------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file, computed the first time that the process asks for it and when it has changed."""
    status = path.stat()
    return _file_sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_sha256(path: Path, size: int, modified: int) -> str:  # noqa: ARG001 - a file that changed is hashed again
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def touch(path: Path) -> None:
    """Note that a file was used, for ``scotl-matgl cache prune``; where that cannot be noted nothing happens."""
    with contextlib.suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


# -- tensors with a header ------------------------------------------------------------------------------------------

# Key of our header in the metadata of safetensors.
_KEY = "scotl_matgl"

_BLANK = "0" * 64

# How our header, which is JSON within JSON, begins in the file.
_SEAL = re.compile(rb'\{\\"sha256\\": \\"([0-9a-f]{64})\\"')


@dataclass(frozen=True)
class TensorKind:
    """A kind of tensor file.

    Attributes
    ----------
    name : str
        As messages have it: ``"bridge"``.
    version : int
        Of the format; raised when a tensor or a field of the header changes its meaning.
    form : Any
        Of the header, see :func:`check_form`.
    remedy : str
        What to do with a file that cannot be used: ``"build it again"``.
    """

    name: str
    version: int
    form: Any
    remedy: str


def write_tensors(path: Path, tensors: Mapping[str, Any], kind: TensorKind, header: Mapping[str, Any]) -> None:
    """Write a safetensors file with a header, whole or not at all, sealed by a sha256 of all of its bytes.

    Parameters
    ----------
    path : path
    tensors : mapping of str to ndarray
    kind : TensorKind
    header : mapping
        JSON values; numbers of numpy are taken too.

    Raises
    ------
    StoredFileError
        If the header is not of the kind's form, no JSON, or too large.
    OSError
        If it cannot be written.
    """
    import numpy as np
    from safetensors.numpy import save

    try:
        content = {"sha256": _BLANK, "schema": [kind.name, kind.version], "header": dict(header)}
        text = json.dumps(content, default=_plain)
    except (TypeError, ValueError) as error:
        raise StoredFileError(f"{path} cannot be written: {error} in the header of a {kind.name}") from error
    check_form(json.loads(text)["header"], kind.form, f"the header of {path}")
    if len(text) > _MAX_HEADER // 2:
        raise StoredFileError(f"{path} cannot be written: its header has {len(text)} characters; write less at once")
    # safetensors writes the memory as it lies, whatever the strides say.
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    data = bytearray(save(contiguous, metadata={_KEY: text}))
    # The text begins with the seal, so that this is its first match.
    start = next(_SEAL.finditer(data)).start(1)
    data[start : start + len(_BLANK)] = hashlib.sha256(data).hexdigest().encode()
    write_whole(path, bytes(data))


def _plain(value: Any) -> Any:
    """JSON form of a number of numpy."""
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is no JSON value")


def read_header(path: Path, kind: TensorKind, *, sha256: str = "") -> dict[str, Any]:
    """Header of a tensor file, whose hash is compared before anything of it is used.

    Parameters
    ----------
    path : path
    kind : TensorKind
        What the file must be.
    sha256 : str, optional
        Hash of the whole file as a manifest or a card has it, for a file written before files carried their own.

    Raises
    ------
    StoredFileError
        If the file is missing, damaged, of another kind or version, has no hash to be compared with, or its header is
        odd; the sentence names the file and what to do.

    Notes
    -----
    The hash is computed the first time that the process reads the file, and when it has changed.
    """

    def read() -> dict[str, Any]:
        try:
            header = _checked_header(path, kind, sha256)
            check_form(header, kind.form, "its header")
        except (StoredFileError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise StoredFileError(f"{path} cannot be read as a {kind.name}: {reason}; {kind.remedy}") from error
        return dict(header)

    return _of_one_file(path, read)


def _checked_header(path: Path, kind: TensorKind, sha256: str) -> Any:
    """What a file has as header, once its hash is compared; the sentences of errors go on after its name."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise StoredFileError("it is no regular file")
    if status.st_size > max_bytes():
        raise StoredFileError(
            f"it has {status.st_size} bytes and more than {max_bytes()} are not read; {MAX_BYTES_VARIABLE} raises that"
        )
    facts = _facts(path, status.st_size, status.st_mtime_ns)
    if facts.damage:
        raise StoredFileError(facts.damage)
    if facts.sealed:
        content = _json(facts.text)
        if content.get("schema") != [kind.name, kind.version]:
            raise StoredFileError(f"it is {_shown(content.get('schema'))}, not {_shown([kind.name, kind.version])}")
        return content.get("header")
    if not sha256:
        raise StoredFileError("it carries no hash of itself, as files of this version do")
    if facts.sha256 != sha256:
        raise StoredFileError(f"its sha256 is {facts.sha256[:12]}..., not {sha256[:12]}... as was recorded")
    return _json(facts.text) if facts.text else {}


def _shown(schema: Any) -> str:
    """Kind and version as a sentence has them."""
    if isinstance(schema, list) and len(schema) == 2:
        return f"a {schema[0]} of format {schema[1]}"[:80]
    return "of no kind that is known"


def is_sealed(path: Path) -> bool:
    """Whether a file carries a hash of itself, right or wrong, or is too large to be read; older files do not."""
    status = path.stat()
    if status.st_size > max_bytes():
        return True
    facts = _facts(path, status.st_size, status.st_mtime_ns)
    return facts.sealed or bool(facts.damage)


def read_tensors(
    path: Path, kind: TensorKind, names: Iterable[str] | None = None, *, sha256: str = ""
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and tensors of a file that :func:`write_tensors` wrote.

    Parameters
    ----------
    path, kind, sha256
        As for :func:`read_header`.
    names : iterable of str, optional
        Tensors to read. Default: all.

    Returns
    -------
    tuple of (dict, dict of str to ndarray)

    Raises
    ------
    StoredFileError
        As :func:`read_header`, and if a tensor is missing.
    """
    from safetensors import SafetensorError, safe_open

    def read() -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        header = read_header(path, kind, sha256=sha256)
        try:
            with safe_open(str(path), framework="numpy") as file:
                wanted = file.keys() if names is None else names
                return header, {name: file.get_tensor(name) for name in wanted}
        except (SafetensorError, OSError) as error:
            raise StoredFileError(f"{path} cannot be read as a {kind.name}: {error}; {kind.remedy}") from error

    return _of_one_file(path, read)


def _of_one_file(path: Path, read: Callable[[], Read]) -> Read:
    """What reading a path gives, read again if another process has put a new file there meanwhile."""

    def identity() -> tuple[int, int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    for _ in range(10):
        before = identity()
        try:
            found = read()
        except StoredFileError:
            if identity() == before:
                raise
            continue
        if identity() == before:
            return found
    return read()


def is_missing(error: BaseException) -> bool:
    """Whether what could not be read was not there: it was deleted after its folder had been listed, say."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, FileNotFoundError):
        cause = cause.__cause__
    return cause is not None


def max_bytes() -> int:
    """Bytes that a tensor file may have at most: what SCOTL_MATGL_MAX_FILE_BYTES says, else 4 GiB."""
    value = os.environ.get(MAX_BYTES_VARIABLE, "")
    try:
        return int(value) if value else _MAX_BYTES
    except ValueError as error:
        raise StoredFileError(f"{MAX_BYTES_VARIABLE} is {value!r}; it must be a whole number of bytes") from error


@dataclass(frozen=True)
class _Facts:
    """What a file says of itself, once it was hashed."""

    damage: str = ""
    sealed: bool = False
    sha256: str = ""
    text: str = ""


@lru_cache(maxsize=8192)
def _facts(path: Path, size: int, modified: int) -> _Facts:
    """Compare the hash of a file with the one that it carries, and take out its header."""
    if size < 8:
        return _Facts(damage=f"it has {size} bytes")
    with _open_regular(path, os.O_RDONLY) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if len(content) != size:
            return _Facts(damage="it is being written to")
        length = int.from_bytes(content[:8], "little")
        if length > min(size - 8, _MAX_HEADER):
            return _Facts(damage=f"its header would have {length} bytes")
        head = content[: 8 + length]
        seal = _SEAL.search(head)
        if seal is None:
            found = _file_sha256(path, size, modified)
        else:
            digest = hashlib.sha256(head[: seal.start(1)] + _BLANK.encode() + head[seal.end(1) :])
            with memoryview(content) as view, view[8 + length :] as rest:
                digest.update(rest)
            found = digest.hexdigest()
    if seal is not None and found.encode() != seal[1]:
        return _Facts(damage=f"its sha256 is {found[:12]}..., not {seal[1][:12].decode()}... as it says itself")
    try:
        text = json.loads(head[8:]).get("__metadata__", {}).get(_KEY, "")
    except (ValueError, RecursionError, AttributeError):
        return _Facts(damage="its header is no JSON")
    if not isinstance(text, str):
        return _Facts(damage="its header is no text")
    return _Facts(sealed=seal is not None, sha256=found, text=text)


@contextlib.contextmanager
def _open_regular(path: Path, flags: int) -> Iterator[Any]:
    """Open a regular file; a pipe, which would block for ever, raises."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "r+b") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no regular file")
        yield file


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """Read a small JSON file that this package wrote beside other files.

    Parameters
    ----------
    path : path
        File, at most 64 MiB.
    remedy : str
        What to do about a damaged one, as the end of a sentence.

    Raises
    ------
    StoredFileError
        If the file is damaged or no JSON object.
    OSError
        If there is none, or it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_RECORD + 1)
        if len(content) > _MAX_RECORD:
            raise StoredFileError(f"it has more than {_MAX_RECORD} bytes")
        return _json(content.decode(), "it")
    except UnicodeDecodeError as error:
        raise StoredFileError(f"{path} is damaged: it is no UTF-8; {remedy}") from error
    except StoredFileError as error:
        raise StoredFileError(f"{path} is damaged: {error}; {remedy}") from error


def _json(text: str, what: str = "its header") -> dict[str, Any]:
    """JSON object of a text in which no key stands twice."""
    try:
        found = json.loads(text, object_pairs_hook=_no_double)
    except (ValueError, RecursionError) as error:
        raise StoredFileError(f"{what} is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise StoredFileError(f"{what} is no JSON object")
    return found


def _no_double(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def check_form(value: Any, form: Any, name: str) -> None:
    """Raise unless a JSON value has a form.

    Parameters
    ----------
    value : Any
        As :mod:`json` reads it.
    form : Any
        ``str``, ``bool``, ``int``, ``float`` (whole numbers too), ``object`` (anything); ``[form]`` for a list of
        these; ``{str: form}`` for a mapping; ``{"key": form}`` for fields, a key that ends in ``?`` being optional and
        others than these allowed; a tuple of forms for any of them.
    name : str
        Of the value, for the message.

    Raises
    ------
    StoredFileError

    Examples
    --------
    >>> check_form({"a": [1]}, {"a": [int], "b?": str}, "it")
    >>> check_form({"a": [1, "x"]}, {"a": [int]}, "it")
    Traceback (most recent call last):
        ...
    scotl_matgl.exceptions.StoredFileError: it: a: item 1 is 'x', not a whole number
    """
    if isinstance(form, tuple):
        _check_any(value, form, name)
    elif isinstance(form, list):
        _check_type(value, list, name)
        plain = _PLAIN.get(form[0], ()) if isinstance(form[0], type) else ()
        if not all(type(item) in plain for item in value):  # headers hold long lists
            for index, item in enumerate(value):
                check_form(item, form[0], f"{name}: item {index}")
    elif isinstance(form, dict):
        _check_type(value, dict, name)
        if str in form:
            for key, item in value.items():
                check_form(item, form[str], f"{name}: {key[:40]}")
        else:
            _check_fields(value, form, name)
    elif form is not object:
        _check_type(value, form, name)


def _check_any(value: Any, forms: Sequence[Any], name: str) -> None:
    for form in forms[1:]:
        try:
            check_form(value, form, name)
        except StoredFileError:
            continue
        return
    check_form(value, forms[0], name)


def _check_fields(value: Mapping[str, Any], form: Mapping[str, Any], name: str) -> None:
    for key, inner in form.items():
        field = key.removesuffix("?")
        if field in value:
            check_form(value[field], inner, f"{name}: {field}")
        elif field == key:
            raise StoredFileError(f"{name} lacks {key!r}")


# Types of which no item of a list needs a closer look.
_PLAIN: dict[type, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (float, int)}

_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    type(None): "nothing",
}


def _check_type(value: Any, kind: type, name: str) -> None:
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        shown = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
        raise StoredFileError(f"{name} is {shown[:60]}, not {_WORDS.get(kind, 'a JSON object')}")


# -- versions -------------------------------------------------------------------------------------------------------

#: Packages whose version can change a number in a bridge.
_RECORDED = ("scotl-matgl", "numpy", "scikit-learn", "torch", "matgl", "dgl", "pymatgen", "matminer")


def installed_versions(names: Sequence[str] = _RECORDED) -> dict[str, str]:
    """Versions of the named distributions that are installed, and of Python."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
