"""Checkpoints: one file, written whole or not at all, verified before it is believed."""

import errno
import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mimlib.places import written_whole

FORMAT = "mimlib checkpoint 1"
FILE_NAME = re.compile(r"step_(\d{8,})\.pt")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: broken, foreign, or of another run."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the file name of the checkpoint taken after `step` steps."""
    return Path(folder) / f"step_{step:08d}.pt"


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, newest first, by name: nothing is opened."""
    found = [path for path in Path(folder).glob("step_*.pt") if FILE_NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder, or None; nothing is opened."""
    return next(iter(list_checkpoints(folder)), None)


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint."""
    return int(FILE_NAME.fullmatch(path.name)[1])


def prepare_folder(folder: Path) -> None:
    """Create the output folder and prove, before any training is lost, that it can be written to.

    OSError says which folder and what to do.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".step_*.part"):  # of a process that was killed while saving
            leftover.unlink()
        probe = folder / f".write_test_{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write to the output folder {folder}; choose another: {error}"
        ) from error


def save_checkpoint(folder: Path, step: int, payload: dict[str, Any], keep: int = 0) -> Path:
    """Write a checkpoint atomically, then delete all but the newest `keep` (0 = delete none).

    The bytes go to a temporary file of the same folder, reach the disk, and only then take the
    final name: a kill, a power cut or a full disk leaves the previous checkpoint as it was.

    The payload is nested dicts, lists and tuples of tensors, numbers, strings and None.
    Raises OSError if the disk is full or the folder cannot be written to.
    """
    path = checkpoint_path(folder, step)
    content = {**payload, "format": FORMAT}
    content["digest"] = digest_of(content)
    try:
        with written_whole(path) as part:
            write_file(part, content)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        good = latest_checkpoint(folder)
        raise OSError(
            getattr(error, "errno", None) or errno.EIO,
            f"could not save {path}: {error}. Free space or choose another folder, then start "
            f"the same run again; it continues from {good or 'the beginning'}",
        ) from error
    older = [other for other in list_checkpoints(folder) if step_of(other) <= step]
    for other in older[keep:] if keep else []:
        other.unlink(missing_ok=True)
    return path


def write_file(path: Path, content: dict[str, Any]) -> None:
    """Write the bytes."""
    with open(path, "wb") as file:
        torch.save(content, file)


def sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU and verify it.

    Only tensors and plain containers are ever built (`weights_only=True`); a file of another
    origin is refused, never unpickled freely.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is broken, foreign or changed since it was written.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; give the path of a step_*.pt file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is not a checkpoint or is cut short; use an earlier one or delete it"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is broken or holds more than tensors and plain values, so it was not "
            "loaded; use an earlier checkpoint, and `mimlib.weights` for official weights"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} was not written by this package; official weights go through `mimlib.weights`"
        )
    digest = content.pop("digest", None)
    if digest != digest_of(content):
        raise CheckpointError(
            f"{path} has changed since it was written (digest differs); use an earlier one"
        )
    return content


def digest_of(content: Any) -> str:
    """Hash every name, type, shape and value of a nested structure with SHA-256."""
    state = hashlib.sha256()
    for chunk in walk(content):
        state.update(chunk)
    return state.hexdigest()


def walk(value: Any) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a nested structure in order, each piece with its type."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        yield f"tensor {value.dtype} {tuple(value.shape)}".encode()
        yield value.reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, dict):
        yield f"dict {len(value)}".encode()
        for key, item in value.items():
            yield repr(key).encode()
            yield from walk(item)
    elif isinstance(value, list | tuple):
        yield f"{type(value).__name__} {len(value)}".encode()
        for item in value:
            yield from walk(item)
    else:
        yield f"{type(value).__name__} {value!r}".encode()
