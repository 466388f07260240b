"""What is written appears whole or not at all; what killed writers leave is swept; a home that is full ends no run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer.main
from safetensors.numpy import save_file
from typer.testing import CliRunner

from scotl_matgl.bridges.base import load_bridge
from scotl_matgl.bridges.cache import list_cache, prune
from scotl_matgl.bridges.lookup import LookUp
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.cli.console import emit, save_figure
from scotl_matgl.cli.main import app
from scotl_matgl.encoders.store import EMBEDDINGS_FILE
from scotl_matgl.exceptions import InputError, StoredFileError, StoredFileWarning
from scotl_matgl.storage import TensorKind, file_sha256, read_header, read_tensors, sweep, write_tensors, write_whole

ANY = TensorKind("thing", 1, {"words?": [str]}, "make it again")

HALF_WRITER = """
import sys, time
from pathlib import Path
from scotl_matgl import storage
with storage._partial_file(Path(sys.argv[1])) as (partial, file):
    file.write(b"half")
    file.flush()
    print(partial, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, content: bytes) -> int:
            self.file.write(content[: len(content) // 2])
            raise OSError(28, "No space left on device")

    def opened(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = real(self, mode, *arguments, **options)
        return Full(file) if "x" in mode else file

    monkeypatch.setattr(Path, "open", opened)


# --- one file --------------------------------------------------------------------------------------------------------


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert target.read_text() == "precious"
    assert link.read_bytes() == b"new"
    assert not link.is_symlink()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"new")
    reader.join()
    assert read == [b"new"]
    assert pipe.is_fifo()


def test_who_may_read_the_old_file_may_read_the_new_one_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    write_whole(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_name_as_long_as_names_may_be_can_be_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 255]


def draw(path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    save_figure(Figure().subplots(), path)


def save_small_model(path: Path) -> None:
    from scotl_matgl import TransferRegressor, load_example

    table = load_example().iloc[::40]
    TransferRegressor([], head="kernel ridge").fit(table["formula"], table["target"]).save(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_whole(path, b"new"),
        lambda path: emit("new", path),
        draw,
        lambda path: RidgeBridge().fit(np.eye(20), np.eye(20)).save(path),
        save_small_model,
    ],
    ids=["bytes", "text", "figure", "bridge", "model"],
)
def test_on_a_full_disk_the_old_file_stays(write: Callable[[Path], Any], tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "file.png"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- unfinished files ------------------------------------------------------------------------------------------------


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writer = subprocess.Popen([sys.executable, "-c", HALF_WRITER, str(path)], stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert writer.stdout is not None
    partial = Path(writer.stdout.readline().strip())
    foreign = tmp_path / ".mine.partial"
    foreign.write_text("not ours")
    assert sweep(tmp_path) == []
    assert partial.read_bytes() == b"half"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert sweep(tmp_path) == [partial]
    assert list(tmp_path.iterdir()) == [foreign]
    assert sweep(tmp_path / "absent") == []


def test_the_next_write_into_a_folder_sweeps_it(tmp_path: Path) -> None:
    (tmp_path / f".file.{'0' * 32}.partial").write_text("half")
    write_whole(tmp_path / "other", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


# --- tensor files ----------------------------------------------------------------------------------------------------


def forged(path: Path, header: bytes, length: int | None = None) -> None:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: forged(path, b"{}", 2**62), "its header would have 4611686018427387904 bytes"),
        (lambda path: forged(path, b"[" * 100_000), "its header is no JSON"),
        (lambda path: forged(path, b'{"a": ' + b"1" * 5000 + b"}"), "its header is no JSON"),
        (lambda path: forged(path, b"[]"), "its header is no JSON"),
        (lambda path: forged(path, b'{"__metadata__": 3}'), "its header is no JSON"),
        (lambda path: forged(path, b'{"__metadata__": {"scotl_matgl": 3}}'), "its header is no text"),
        (lambda path: forged(path, b"{}"), "it carries no hash of itself"),
        (lambda path: path.write_bytes(b""), "it has 0 bytes"),
        (lambda path: os.mkfifo(path), "it is no regular file"),
        (lambda path: path.mkdir(), "it is no regular file"),
        (lambda path: write_tensors(path, {}, TensorKind("other", 1, {}, ""), {}), "it is a other of format 1, not a"),
        (
            lambda path: write_tensors(path, {}, TensorKind("thing", 2, {}, ""), {}),
            "it is a thing of format 2, not a thing",
        ),
        (
            lambda path: write_tensors(path, {}, TensorKind("thing", 1, {}, ""), {"words": {"a": 1}}),
            "its header: words is a dict, not a list",
        ),
    ],
)
def test_odd_files_are_a_sentence(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "odd"
    write(path)
    with pytest.raises(StoredFileError, match=f"odd cannot be read as a thing: {message}.*; make it again"):
        read_header(path, ANY)


def test_a_tensor_that_announces_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    import hashlib
    import json

    blank = "0" * 64
    text = json.dumps({"sha256": blank, "schema": ["thing", 1], "header": {}})
    tensor = {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}
    content = json.dumps({"__metadata__": {"scotl_matgl": text}, "a": tensor}).encode()
    content = len(content).to_bytes(8, "little") + content
    digest = hashlib.sha256(content).hexdigest().encode()
    path = tmp_path / "odd"
    path.write_bytes(content.replace(blank.encode(), digest))
    with pytest.raises(StoredFileError, match="odd cannot be read as a thing"):
        read_tensors(path, ANY)


def test_a_file_above_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors(tmp_path / "file", {"a": np.zeros(1000)}, ANY, {})
    monkeypatch.setenv("SCOTL_MATGL_MAX_FILE_BYTES", "1000")
    with pytest.raises(StoredFileError, match="more than 1000 are not read; SCOTL_MATGL_MAX_FILE_BYTES raises that"):
        read_header(tmp_path / "file", ANY)
    monkeypatch.setenv("SCOTL_MATGL_MAX_FILE_BYTES", "much")
    with pytest.raises(StoredFileError, match="is 'much'; it must be a whole number of bytes"):
        read_header(tmp_path / "file", ANY)


# --- the package's own folder ----------------------------------------------------------------------------------------


def fill(home: Path, count: int = 4) -> list[Path]:
    """Shards of which the first was used last."""
    paths = []
    for index in range(count):
        path = home / "embeddings" / "Toy" / f"{index}.safetensors"
        tensors = {"readout": np.full((1, 1000), index, np.float32)}
        write_tensors(path, tensors, EMBEDDINGS_FILE, {"crystals": ["a"], "refused": {}})
        used = time.time_ns() + (count - index) * 10**9
        os.utime(path, ns=(used, path.stat().st_mtime_ns))
        paths.append(path)
    return paths


def test_prune_deletes_the_least_recently_used_and_never_a_bridge(home: Path) -> None:
    paths = fill(home)
    LookUp.of(["a"], np.ones((1, 3), np.float32), {}).save(home / "lookup" / "Toy--readout.safetensors")
    bridge = home / "bridges" / "Toy.safetensors"
    RidgeBridge().fit(np.eye(20), np.eye(20)).save(bridge)
    size = paths[0].stat().st_size
    (home / "embeddings" / "Toy" / f".x.{'0' * 32}.partial").write_bytes(b"half")
    deleted = {file.path.name for file in prune(2 * size)}
    assert deleted == {f".x.{'0' * 32}.partial", "Toy--readout.safetensors", "3.safetensors", "2.safetensors"}
    assert [path.exists() for path in paths] == [True, True, False, False]
    prune(0)
    assert [file.kind for file in list_cache()] == ["bridges"]
    assert isinstance(load_bridge(bridge), RidgeBridge)


def test_the_cache_commands_say_what_there_is_and_what_is_damaged(home: Path) -> None:
    assert CliRunner().invoke(app, ["cache", "info"]).output.endswith("home: 0.0 MB\n")
    paths = fill(home, 3)
    done = CliRunner().invoke(app, ["cache", "info"])
    assert "embeddings       3 files" in done.stdout
    done = CliRunner().invoke(app, ["cache", "verify"])
    assert (done.exit_code, done.stdout) == (0, "3 files, 0 of them damaged\n")
    content = bytearray(paths[1].read_bytes())
    content[-1] ^= 1
    paths[1].write_bytes(content)
    done = CliRunner().invoke(app, ["cache", "verify"])
    assert done.exit_code == 1
    assert f"{paths[1]} cannot be read as a chunk of embeddings: its sha256 is" in done.stdout
    assert done.stdout.endswith("3 files, 1 of them damaged\n")
    done = CliRunner().invoke(app, ["cache", "prune", "--megabytes", "0"])
    assert done.stdout.startswith("deleted 3 files")


def test_networks_of_before_files_carried_hashes_are_told_apart_from_damaged_ones(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "sources" / "old.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"a.weight": np.ones((2, 3), np.float32)}, path)

    def verify() -> tuple[int, str]:
        done = CliRunner().invoke(app, ["cache", "verify"])
        return done.exit_code, done.stdout

    code, said = verify()
    assert (code, said.splitlines()[-1]) == (0, "1 file, 0 of them damaged")
    assert said.startswith(f"{path} carries no hash, and no card that is listed has it")
    card = SimpleNamespace(weights={path.name: file_sha256(path)})
    monkeypatch.setattr("scotl_matgl.bridges.cache.all_cards", lambda _failed: [card])
    assert verify() == (0, "1 file, 0 of them damaged\n")
    card.weights[path.name] = "0" * 64
    code, said = verify()
    assert code == 1
    assert f"{path} cannot be read as a file of networks: its sha256 is" in said


@pytest.mark.parametrize("command", [["zoo", "list"], ["bridge", "show"], ["cache", "info"]])
def test_no_odd_file_ends_a_listing(home: Path, command: list[str]) -> None:
    folder = home / "bridges"
    folder.mkdir(parents=True)
    forged(folder / "deep.safetensors", b"[" * 100_000)
    forged(folder / "long.safetensors", b"{}", 2**63)
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "folder.safetensors").mkdir()
    (folder / "empty.safetensors").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        if command == ["cache", "info"]:
            done = CliRunner().invoke(app, command)
        else:
            with pytest.warns(StoredFileWarning, match="is left out") as told:
                done = CliRunner().invoke(app, command)
            assert len(told) == 5
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_no_command_writes_over_the_table_that_it_reads(home: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("formula,target\nNaCl,1\n")
    (tmp_path / "link.csv").symlink_to(table)
    (tmp_path / "hard.csv").hardlink_to(table)
    named = (
        [[name, str(table), "-o"] for name in ("rank", "fit", "curve", "validate", "evaluate")]
        + [[name, str(table), "-o", str(tmp_path / "o"), "--report"] for name in ("rank", "fit")]
        + [["curve", str(table), "--plot"], ["predict", "no.skops", "--table", str(table), "-o"]]
        + [["predict", str(table), "NaCl", "-o"], ["encode", "--structures", str(table), "-o"]]
        + [["trade", str(table), "--price-target=1", "--price-source=1", "--error=1", "--plot"]]
    )
    for output in ("table.csv", "link.csv", "hard.csv"):
        for command in named:
            done = CliRunner().invoke(app, [*command, str(tmp_path / output)])
            assert isinstance(done.exception, InputError), (command, done.output)
            assert "is the file that is read, which the result would replace" in str(done.exception)
    assert table.read_text() == "formula,target\nNaCl,1\n"


def test_every_command_that_writes_takes_the_short_option() -> None:
    def commands(group: Any) -> Iterator[Any]:
        for command in group.commands.values():
            yield from commands(command) if hasattr(command, "commands") else [command]

    options = {
        command.name: option.opts
        for command in commands(typer.main.get_command(app))
        for option in command.params
        if "--output" in option.opts
    }
    assert {"rank", "fit", "predict", "encode", "train", "evaluate", "curve", "validate"} <= options.keys()
    assert [name for name, names in options.items() if "-o" not in names] == []


def test_what_a_full_disk_refuses_is_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    code = (
        "import resource, pathlib; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        f"from scotl_matgl.storage import write_whole; write_whole(pathlib.Path({str(path)!r}), bytes(5000))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-c", code]  # whose coverage could not be written either
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    assert done.stderr.splitlines()[-1].endswith(f"{str(path)!r}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_closed_stderr_costs_no_result(tmp_path: Path) -> None:
    command = f"{sys.executable} -m scotl_matgl zoo list 2>&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0
    assert "rankable as they are" in done.stdout
    code = "import sys; from scotl_matgl.cli import main; sys.argv[1:] = ['rank', 'no.csv']; main.main()"
    done = subprocess.run(["/bin/sh", "-c", f'{sys.executable} -c "{code}" 2>&-'], check=False)  # noqa: S603
    assert done.returncode == 2


@pytest.mark.parametrize("wrong", ["--jobs 0", "--seed -1", "--seed 99999999999999999999"])
def test_numbers_that_no_method_takes_are_usage_errors(wrong: str) -> None:
    assert CliRunner().invoke(app, ["rank", "table.csv", *wrong.split()]).exit_code == 2
