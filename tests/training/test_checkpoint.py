from __future__ import annotations

import errno
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from commentaries.errors import BadInput, BadRun
from commentaries.training import atomic, checkpoint

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
]


class Momentum(NamedTuple):
    step: int
    velocity: dict[str, torch.Tensor]


class Adam(NamedTuple):
    step: int
    velocity: dict[str, torch.Tensor]


class Train(NamedTuple):
    step: int
    phi: dict[str, torch.Tensor]
    outer_state: Any
    students: tuple[Momentum, ...]
    adjoint: Any
    best: float
    name: str | None


def train_state(step: int, *, width: int = 3, adjoint: Any = None) -> Train:
    generator = torch.Generator().manual_seed(step)

    def params() -> dict[str, torch.Tensor]:
        return {
            "layer.weight": torch.randn(2, width, generator=generator),
            "a/b~c": torch.randn(width, generator=generator, dtype=torch.float64),
        }

    return Train(
        step=step,
        phi=params(),
        outer_state=Momentum(step, params()),
        students=(Momentum(step, params()), Momentum(step + 1, {})),
        adjoint=adjoint,
        best=float("inf"),
        name=None,
    )


def same(a: Any, b: Any) -> bool:
    """Equal in type, structure, order and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and a.stride() == b.stride()
            and a.device == b.device
            and raw(a) == raw(b)
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a.hex() == b.hex()
    return a == b


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def fresh(tree: Any) -> Any:
    """The same structure with other values, as an initialised state has."""
    if isinstance(tree, torch.Tensor):
        return torch.zeros_like(tree)
    if isinstance(tree, dict):
        return {name: fresh(child) for name, child in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(fresh, tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map(fresh, tree))
    return None if tree is None else type(tree)()


def tensor(seed: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Random bits, so also NaNs with payloads, infinities, subnormals and -0."""
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    size = torch.Size(shape).numel() * dtype.itemsize
    bits = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
    return bits.view(dtype).reshape(shape)


tensors = st.builds(
    tensor,
    st.integers(0, 2**31),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
)
leaves = tensors | st.integers() | st.floats() | st.booleans() | st.text() | st.none()
trees = st.recursive(
    leaves,
    lambda child: (
        st.lists(child, max_size=3)
        | st.lists(child, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["", "/", "~1", "a/b"]), child)
        | st.builds(Momentum, child, child)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(tree=trees)
def test_any_tree_returns_bit_for_bit(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("tree") / "checkpoint.pt"
    checkpoint.save(path, tree)
    assert same(checkpoint.load(path, fresh(tree)), tree)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_returns_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    value = tensor(3, dtype, (5, 7))
    checkpoint.save(tmp_path / "c.pt", {"value": value, "transposed": value.T})
    like = {"value": torch.zeros_like(value), "transposed": torch.zeros_like(value).T}
    loaded = checkpoint.load(tmp_path / "c.pt", like)
    assert same(loaded, {"value": value, "transposed": value.T})


def test_shared_storage_stays_shared_and_graphs_are_cut(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    checkpoint.save(tmp_path / "c.pt", {"a": weight, "b": weight, "c": 2 * weight})
    loaded = checkpoint.load(tmp_path / "c.pt", dict.fromkeys("abc", torch.zeros(2, 2)))
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr()
    assert not any(value.requires_grad for value in loaded.values())
    assert type(loaded["a"]) is torch.Tensor
    assert torch.equal(loaded["c"], torch.full((2, 2), 2.0))


def test_dicts_keep_the_order_of_the_run_that_wrote_them(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", {"b": 1, "a": 2})
    assert list(checkpoint.load(tmp_path / "c.pt", {"a": 0, "b": 0})) == ["b", "a"]


def test_what_was_none_at_the_start_is_rebuilt_by_its_own_structure(tmp_path: Path) -> None:
    adjoint = {"w": torch.randn(3), "more": [torch.ones(2), (1, {})]}
    state = train_state(5, adjoint=adjoint)
    checkpoint.save(tmp_path / "c.pt", state)
    assert same(checkpoint.load(tmp_path / "c.pt", train_state(0)), state)
    checkpoint.save(tmp_path / "c.pt", train_state(5))
    assert checkpoint.load(tmp_path / "c.pt", train_state(0)).adjoint is None


def test_tensors_go_to_the_device_of_their_counterpart_or_to_that_of_the_run(
    tmp_path: Path,
) -> None:
    state = {"rng": torch.zeros(2), "w": torch.zeros(2), "adjoint": torch.zeros(2)}
    checkpoint.save(tmp_path / "c.pt", state)
    like = {"rng": torch.zeros(2), "w": torch.zeros(2, device="meta"), "adjoint": None}
    loaded = checkpoint.load(tmp_path / "c.pt", like)
    assert {name: str(value.device) for name, value in loaded.items()} == {
        "rng": "cpu",
        "w": "meta",
        "adjoint": "meta",
    }


def test_meta_is_read_without_a_state(tmp_path: Path) -> None:
    meta = {"step": 3, "scores": [0.5, float("-inf")], "by": {"name": "weights"}, "seed": None}
    checkpoint.save(tmp_path / "c.pt", train_state(3), meta=meta)
    assert checkpoint.read_meta(tmp_path / "c.pt") == meta
    checkpoint.save(tmp_path / "c.pt", train_state(3))
    assert checkpoint.read_meta(tmp_path / "c.pt") == {}


def test_the_file_is_an_ordinary_archive_without_classes(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", train_state(1))
    payload = torch.load(tmp_path / "c.pt", weights_only=True)
    assert payload["format"] == checkpoint.FORMAT
    with zipfile.ZipFile(tmp_path / "c.pt") as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize(
    ("like", "place"),
    [
        ({"w": torch.zeros(3)}, r"at /w .*float32 tensor of shape \(2,\).*shape \(3,\)"),
        ({"w": torch.zeros(2, dtype=torch.float64)}, "at /w .*float32 .*float64"),
        ({"v": torch.zeros(2)}, "at /v it has nothing"),
        ({"w": torch.zeros(2), "v": 0}, "at /v it has nothing"),
        ({}, "at /w it has an entry, where this run has nothing"),
        ({"w": 1.0}, "at /w .*where this run has a float"),
        ({"w": {}}, "at /w .*where this run has a dict"),
        ([torch.zeros(2)], "at / it has a dict, where this run has a list"),
    ],
)
def test_another_configuration_is_refused_with_its_place(
    like: Any, place: str, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "c.pt", {"w": torch.ones(2)})
    with pytest.raises(BadRun, match=f"made by another configuration: {place}") as caught:
        checkpoint.load(tmp_path / "c.pt", like)
    assert "Resume with the configuration" in str(caught.value)


@pytest.mark.parametrize(
    ("state", "like"),
    [
        ({"n": 1}, {"n": 1.0}),
        ({"n": True}, {"n": 1}),
        ({"n": None}, {"n": {}}),
        ({"n": None}, {"n": torch.zeros(2)}),
        ((1, 2), (1, 2, 3)),
        ((1, 2, 3), (1, 2)),
        ((1,), [1]),
        (Momentum(1, {}), Adam(1, {})),
        (Momentum(1, {}), (1, {})),
        (Momentum(1, {}), None),  # a class cannot come from the file
    ],
)
def test_other_types_and_lengths_are_refused(state: Any, like: Any, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", state)
    with pytest.raises(BadRun, match="made by another configuration"):
        checkpoint.load(tmp_path / "c.pt", like)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [0, object()]}, "object at /a/1"),
        ({"a": torch.Size([1])}, "Size at /a"),
        ({"a": torch.tensor(1.0).numpy()[()]}, "float32 at /a"),
        ({"a": {1: 2}}, "key 1 at /a"),
    ],
)
def test_what_cannot_be_restored_is_not_saved(state: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        checkpoint.save(tmp_path / "c.pt", state)
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_at_any_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, train_state(1))
    whole = path.read_bytes()
    lengths = {0, 1, 4, 63, 64, 500, 1023, len(whole) // 2, len(whole) - 90}
    for length in sorted(lengths | set(range(len(whole) - 8, len(whole)))):
        path.write_bytes(whole[:length])
        with pytest.raises(BadRun, match=r"cut short or damaged|not a checkpoint of commentaries"):
            checkpoint.load(path, train_state(0))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadRun, match=r"cut short or damaged\. Restore a copy"):
        checkpoint.load(path, train_state(0))


def test_a_single_wrong_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, train_state(1))
    whole = path.read_bytes()
    for position in random.Random(0).sample(range(1100, len(whole)), 40):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(BadRun, match="cut short or damaged"):
            checkpoint.load(path, train_state(0))


class Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_foreign_files_are_refused_and_run_no_code(tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "c.pt"

    def refused() -> None:
        with pytest.raises(BadRun, match=r"not a checkpoint of commentaries\. Give the"):
            checkpoint.load(path, train_state(0))

    path.write_text("a text file\n" * 50)
    refused()
    path.write_bytes(pickle.dumps(Code(ran)))
    refused()
    torch.save(Code(ran), path)
    refused()
    torch.save({"weight": torch.zeros(2)}, path)
    refused()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused()
    assert not ran.exists()


def test_a_forged_seal_does_not_run_code(tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "c.pt"
    torch.save(Code(ran), path)
    path.write_bytes(checkpoint._sealed(path.read_bytes()))
    with pytest.raises(BadRun, match="cannot read the checkpoint"):
        checkpoint.load(path, train_state(0))
    assert not ran.exists()


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", 2)
        checkpoint.save(tmp_path / "c.pt", train_state(1))
    with pytest.raises(BadRun, match=r"format version 2.*Upgrade commentaries"):
        checkpoint.load(tmp_path / "c.pt", train_state(0))


def test_missing_files_and_folders_are_said(tmp_path: Path) -> None:
    with pytest.raises(BadRun, match=r"There is no checkpoint .*c\.pt\. Check the path"):
        checkpoint.load(tmp_path / "c.pt", train_state(0))
    with pytest.raises(BadRun, match="Check the path"):
        checkpoint.load(tmp_path, train_state(0))
    with pytest.raises(BadRun, match="its folder is missing"):
        checkpoint.save(tmp_path / "no" / "c.pt", train_state(0))
    (tmp_path / "file").touch()
    with pytest.raises(BadRun, match="its folder is missing"):
        checkpoint.save(tmp_path / "file" / "c.pt", train_state(0))


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "disk is full.*Free some space and resume"),
        (errno.EDQUOT, "disk is full"),
        (errno.EACCES, "no permission to write .*Change the permissions"),
        (errno.EIO, "Could not write .*Check the path and the disk"),
    ],
)
def test_a_failed_write_keeps_the_older_checkpoint(
    call: str, code: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, older = tmp_path / "c.pt", train_state(1)
    checkpoint.save(path, older)

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(BadRun, match=remedy) as caught:
            checkpoint.save(path, train_state(2))
    assert isinstance(caught.value.__cause__, OSError)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.pt"]
    assert same(checkpoint.load(path, train_state(0)), older)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs POSIX file size limits")
def test_a_write_that_stops_in_the_middle_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path, older = tmp_path / "c.pt", train_state(1)
    checkpoint.save(path, older)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(BadRun, match="Could not write"):
            checkpoint.save(path, train_state(2, width=100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.pt"]
    assert same(checkpoint.load(path, train_state(0)), older)


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", {})
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "c.pt").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


SAVE_FOREVER = """
import sys
import torch
from commentaries.training import checkpoint

torch.set_num_threads(1)
step = 0
while True:
    step += 1
    checkpoint.save(
        sys.argv[1], {"step": step, "w": torch.full((1_000_000,), step), "b": [float(step)]}
    )
    print(step, flush=True)
"""


LIKE = {"step": 0, "w": torch.zeros(1_000_000, dtype=torch.int64), "b": [0.0]}
SOURCE = os.environ | {"PYTHONPATH": str(Path(checkpoint.__file__).parents[2])}


def loaded_step(path: Path) -> int:
    """The step of a checkpoint that is whole and consistent in itself."""
    loaded = checkpoint.load(path, LIKE)
    step = loaded["step"]
    assert torch.equal(loaded["w"], torch.full_like(LIKE["w"], step))
    assert loaded["b"] == [float(step)]
    return step


def test_killed_at_any_moment_it_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    delays = random.Random(7)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=SOURCE,
        )
        assert process.stdout is not None
        process.stdout.readline()  # the first save is done
        time.sleep(delays.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        assert loaded_step(path) >= max([1, *map(int, said)])  # what was reported is saved
    atomic.remove_temporaries(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.pt"]


DIE_SAVING = """
import os, resource, signal, sys
import torch
from commentaries.training import checkpoint

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
real = getattr(os, name)

def dying(*arguments):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

if name == "write":  # the kernel kills the process in the middle of the file
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))
else:
    setattr(os, name, dying)
w = torch.full((1_000_000,), 2)
checkpoint.save(path, {"step": 2, "w": w, "b": [2.0]})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs POSIX file size limits")
@pytest.mark.parametrize(
    ("call", "count", "step", "left"),
    [("write", 1_000_000, 1, 1), ("fsync", 1, 1, 1), ("replace", 1, 1, 1), ("fsync", 2, 2, 0)],
    ids=["writing", "written", "synchronised", "replaced"],
)
def test_killed_between_any_two_moves_it_leaves_a_whole_checkpoint(
    call: str, count: int, step: int, left: int, tmp_path: Path
) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"step": 1, "w": torch.ones_like(LIKE["w"]), "b": [1.0]})
    command = [sys.executable, "-c", DIE_SAVING, str(path), call, str(count)]
    killed = signal.SIGXFSZ if call == "write" else signal.SIGKILL
    assert subprocess.run(command, env=SOURCE).returncode == -killed
    assert loaded_step(path) == step
    temporaries = [entry for entry in tmp_path.iterdir() if entry != path]
    assert len(temporaries) == left
    assert all(map(atomic.is_temporary, temporaries))
