"""Rendered sets on disk: one memory-mapped file per kind of ground truth.

A file is a magic line, the length and checksum of a JSON header, the header, and the fields, each
with a checksum. It is written under a temporary name and renamed, so that a reader never sees half
a file and two writers never mix. A file that fails any check is removed and rendered again.
"""

import hashlib
import json
import os
import struct
import tempfile
import warnings
import zlib
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MAGIC = b"mimlib world 1\n"
SUFFIX = ".world"
ALIGNMENT = 64  # bytes
Fields = dict[str, Tensor]


def cache_folder() -> Path:
    """Return where sets are kept: MIMLIB_CACHE, or ~/.cache/mimlib."""
    return Path(os.environ.get("MIMLIB_CACHE") or Path.home() / ".cache" / "mimlib")


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return a hash of the sources of the world and of the release its photographs come from."""
    digest = hashlib.sha256(version("scikit-image").encode())
    world = Path(__file__).parents[1]
    for source in sorted(world.rglob("*.py")):
        digest.update(source.relative_to(world).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()


def file_stem(key: dict[str, object]) -> str:
    """Return the readable and unique name of a set without its length."""
    text = json.dumps(key | {"code": code_version()}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    words = [str(key[word]) for word in ("recipe", "level", "size", "truth") if word in key]
    return "-".join([*words, digest])


def load(key: dict[str, object], count: int) -> Fields | None:
    """Return the first `count` items of a cached set as memory-mapped tensors, or None.

    Any cached set of the same key that is long enough will do. Broken files are removed with a
    warning. Writing to the tensors does not change the file.
    """
    stem = file_stem(key)
    try:
        candidates = [(file_count(path), path) for path in cache_folder().glob(f"{stem}-*{SUFFIX}")]
    except OSError:
        return None
    for length, path in sorted(candidates):
        if length < count:
            continue
        try:
            fields = read_file(path, expected={"stem": stem, "count": length})
        except FileNotFoundError:
            continue  # removed by another process
        except (OSError, ValueError) as error:
            warnings.warn(f"{path} is unusable ({error}); rendering it again", stacklevel=2)
            with suppress(OSError):  # of a read-only folder
                path.unlink()
            continue
        return {name: tensor[:count] for name, tensor in fields.items()}
    return None


def file_count(path: Path) -> int:
    """Return the number of items that a file's name promises, 0 if it promises none."""
    tail = path.stem.rpartition("-")[2]
    return int(tail) if tail.isdecimal() else 0


def store(key: dict[str, object], count: int, fields: Fields) -> None:
    """Keep a set on disk; without a writable folder or free space, warn and go on."""
    stem = file_stem(key)
    path = cache_folder() / f"{stem}-{count}{SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, fields, {"stem": stem, "count": count})
    except OSError as error:
        warn_unwritable(str(path.parent), error.strerror or str(error))


@lru_cache(maxsize=8)
def warn_unwritable(folder: str, reason: str) -> None:
    """Warn once per folder and reason that sets are rendered anew each time."""
    warnings.warn(
        f"cannot keep rendered sets in {folder} ({reason}); set MIMLIB_CACHE to a writable folder "
        "to render them only once",
        stacklevel=3,
    )


def write_file(path: Path, fields: Fields, about: dict[str, object] | None = None) -> None:
    """Write fields to a file that appears complete or not at all.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    arrays = {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in fields.items()}
    entries, offset = [], 0
    for name, array in arrays.items():
        entries.append(
            {
                "name": name,
                "dtype": array.dtype.str,
                "shape": array.shape,
                "offset": offset,
                "checksum": zlib.crc32(array.reshape(-1).view(np.uint8)),
            }
        )
        offset += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    header = json.dumps((about or {}) | {"fields": entries}).encode()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + struct.pack("<II", len(header), zlib.crc32(header)) + header)
            for array in arrays.values():
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                file.write(array.reshape(-1).view(np.uint8))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_file(path: Path, expected: dict[str, object] | None = None) -> Fields:
    """Map a file into memory and check it.

    Raises:
        ValueError: if it is truncated, corrupt, or not what is expected.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("not a file of the world")
        lengths = file.read(8)
        if len(lengths) != 8:
            raise ValueError("truncated")
        length, checksum = struct.unpack("<II", lengths)
        text = file.read(length)
        if zlib.crc32(text) != checksum:
            raise ValueError("broken header")
        start = -(-file.tell() // ALIGNMENT) * ALIGNMENT
    header = json.loads(text)
    if not isinstance(header, dict) or not (expected or {}).items() <= header.items():
        raise ValueError("it holds another set")
    fields = {}
    for entry in header["fields"]:
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        # Copy on write: tensors may be written to, the file stays as it is.
        array = np.memmap(path, dtype, "c", start + entry["offset"], shape)
        if zlib.crc32(array.reshape(-1).view(np.uint8)) != entry["checksum"]:
            raise ValueError(f"checksum of {entry['name']} is wrong")
        fields[entry["name"]] = torch.from_numpy(array)
    return fields
