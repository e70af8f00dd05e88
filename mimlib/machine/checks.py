"""Device, memory, disk and the cost of each lesson here: the doctor's second look.

Apart from doctor.py because it needs torch, which the doctor must be able to miss. A finding is a
state, as in doctor.py, and a line of text.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator

import psutil
import torch

from mimlib import places
from mimlib.machine.costs import predict, rates
from mimlib.machine.origin import hardware, number_type
from mimlib.presets import preset
from mimlib.training.config import pick_device
from mimlib.world.sets.cache import cache_folder

NEEDED_MEMORY_GIB = 3.0
NEEDED_DISK_GIB = 1.0


def examine() -> list[tuple[str, str]]:
    """Look at everything a lesson needs of the machine."""
    return [_device(), _memory(), _cache(), *_lessons()]


def _device() -> tuple[str, str]:
    device = pick_device("auto")
    if device.type == "cpu":
        made_for = "The lessons are made for this"
        return "ok", f"no GPU: will train on {hardware()} in {number_type()}. {made_for}"
    if device.type != "cuda":
        return "ok", f"will train on {device.type}"
    count = torch.cuda.device_count()
    name = torch.cuda.get_device_name(device)
    return "ok", f"will train on {name}" + (f" (one of {count})" if count > 1 else "")


def _memory() -> tuple[str, str]:
    free = psutil.virtual_memory().available / 2**30
    if free < NEEDED_MEMORY_GIB:
        need = f"lessons need {NEEDED_MEMORY_GIB:.0f}: close programs"
        return "note", f"{free:.1f} GiB of memory free, {need}"
    return "ok", f"{free:.0f} GiB of memory free"


def _cache() -> tuple[str, str]:
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        text = f"cannot keep rendered worlds, each is rendered every time ({error})"
        return "note", f"{text}; set MIMLIB_CACHE to a writable folder"
    if free < NEEDED_DISK_GIB:
        text = f"{free:.1f} GiB of disk free at {folder}"
        return "note", f"{text}; set MIMLIB_CACHE to a roomier place"
    return "ok", f"rendered worlds are kept in {folder} ({free:.0f} GiB free)"


def _lessons() -> Iterator[tuple[str, str]]:
    """Predict what each lesson costs here; its receipt says what it did and where it was made."""
    measured = sorted((places.receipts() / "notebooks").glob("*.json"))
    for path in measured:
        receipt = json.loads(path.read_text(encoding="utf-8"))
        memory = receipt["peak_memory_mib"] / 1024
        made = receipt.get("environment", receipt)
        there = f"{receipt['seconds']:.0f} s on {made['hardware']}"
        if "rates" in receipt:
            seconds = predict(receipt, rates(preset(receipt["preset"])))
            text = f"about {seconds:.0f} s and {memory:.1f} GiB here; {there}"
            yield "ok", f"lesson {path.stem}: {text}, {made['number_type']}"
        else:
            text = f"{memory:.1f} GiB; {there} whose rates were not recorded"
            yield "note", f"lesson {path.stem}: {text}"
    if not measured:
        yield "note", "no measured lesson times found beside this package"
