"""Rendered sets on disk: one memory-mapped safetensors file per kind of ground truth.

Its metadata say which set it holds and the checksum of all fields. A file appears whole or not at
all; one that fails any check is removed and rendered again.
"""

import hashlib
import json
import os
import warnings
import zlib
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mimlib.places import written_whole

SUFFIX = ".safetensors"
Fields = dict[str, Tensor]


def cache_folder() -> Path:
    """Return where sets are kept: MIMLIB_CACHE, or ~/.cache/mimlib.

    Raises:
        FileNotFoundError: if that is in the home of a user who has none, as in some containers.
    """
    folder = Path(os.environ.get("MIMLIB_CACHE") or "~/.cache/mimlib")
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"no home folder for {folder}") from error


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return a hash of the sources of the world and of the release its photographs come from."""
    digest = hashlib.sha256(version("scikit-image").encode())
    world = Path(__file__).parents[1]
    for source in sorted(world.rglob("*.py")):
        digest.update(source.relative_to(world).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()


def maker() -> str:
    """Name the code that makes rooms, in a word: what equal settings must have in common.

    Pixels would not do: processors differ in the last bits of what they render.
    """
    return f"world {code_version()[:12]}"


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
        paths = list(cache_folder().glob(f"{stem}-*{SUFFIX}"))
    except OSError:
        return None
    lengths = [(path.stem.rpartition("-")[2], path) for path in paths]
    candidates = [(int(length), path) for length, path in lengths if length.isdecimal()]
    for _, path in sorted(found for found in candidates if found[0] >= count):
        try:
            fields = read_file(path, path.stem)
        except FileNotFoundError:
            continue  # removed by another process
        except (OSError, ValueError) as error:
            warnings.warn(f"{path} is unusable ({error}); rendering it again", stacklevel=2)
            with suppress(OSError):  # of a read-only folder
                path.unlink()
            continue
        return {name: tensor[:count] for name, tensor in fields.items()}
    return None


def store(key: dict[str, object], count: int, fields: Fields) -> None:
    """Keep a set on disk; without a writable folder or free space, warn and go on."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / f"{file_stem(key)}-{count}{SUFFIX}", fields)
    except OSError as error:
        warn_unwritable(error.strerror or str(error))  # without the name of the file


@lru_cache(maxsize=8)
def warn_unwritable(reason: str) -> None:
    """Warn once per reason that sets are rendered anew each time."""
    warnings.warn(
        f"cannot keep rendered sets in {os.environ.get('MIMLIB_CACHE') or '~/.cache/mimlib'} "
        f"({reason}); set MIMLIB_CACHE to a writable folder to render them only once",
        stacklevel=3,
    )


def write_file(path: Path, fields: Fields) -> None:
    """Write fields to a file that appears complete or not at all.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    fields = {name: tensor.contiguous() for name, tensor in fields.items()}
    about = {"set": path.stem, "fields": " ".join(fields), "checksum": checksum(fields)}
    with written_whole(path) as part:
        part.write_bytes(save(fields, about))


def read_file(path: Path, what: str) -> Fields:
    """Map a file into memory and check it.

    Raises:
        ValueError: if it is truncated, corrupt, or not the set `what`.
        OSError: if it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            names = about.get("fields", "").split()  # in the order given; file.keys() has another
            fields = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if about.get("set") != what:
        raise ValueError("it holds another set")
    if about.get("checksum") != checksum(fields):
        raise ValueError("its checksum is wrong")
    return fields


def checksum(fields: Fields) -> str:
    """Return a checksum of names, kinds, shapes and contents."""
    total = 0
    for name, tensor in sorted(fields.items()):
        array = tensor.numpy()
        total = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), total)
        total = zlib.crc32(array.data, total)
    return f"{total:08x}"
