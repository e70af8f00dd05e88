"""Render a set: group by group, in chunks that suit the processor."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mimlib.world.atlas import Atlas, default_atlas
from mimlib.world.levels import find_level
from mimlib.world.scenes import move, take
from mimlib.world.views import AIMS, VIEWS_PER_GROUP, draw_views, render_views

Progress = Callable[[int, int], None]  # items done, items in all
Fields = dict[str, Tensor]
SIZES = (8, 1024)  # px, smallest and largest image side
CPU_PIXELS, DEVICE_PIXELS = 1 << 14, 1 << 19  # rendered in one call


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a set consists of, apart from how many items and which ground truth."""

    kind: str  # views
    seed: int
    size: int  # px, image side
    level: str = "paper"
    aim: str = "room"

    def __post_init__(self):
        """Check what can be checked without rendering."""
        find_level(self.level)
        if self.aim not in AIMS:
            raise ValueError(f"unknown aim {self.aim!r}; choose one of {', '.join(AIMS)}")
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise ValueError(
                f"image size {self.size} px is out of range; choose {SIZES[0]} to {SIZES[1]}"
            )

    def key(self, truth: str) -> dict[str, object]:
        """Return what one kind of ground truth of this set is cached under."""
        return asdict(self) | {"truth": truth}

    @property
    def group_size(self) -> int:
        """Return how many items are drawn together."""
        return VIEWS_PER_GROUP

    def draw(self, group: int) -> tuple:
        """Draw the items of a group on the CPU."""
        return draw_views(self.seed, self.level, self.aim, group)

    def render(self, items: tuple, kinds: tuple[str, ...], atlas: Atlas) -> dict[str, Fields]:
        """Render items on the device they are on."""
        return render_views(items, self.size, kinds, atlas)


@lru_cache(maxsize=2)
def atlas_on(device: torch.device | None) -> Atlas:
    """Return the default atlas on a device."""
    return default_atlas() if device is None else default_atlas().to(device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run on one thread and without gradients.

    A second thread does not pay for tensors that fit the cache, and it changes the order of sums.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


def chunk_size(request: Request, device: torch.device | None) -> int:
    """Return how many items to render in one call, a power of two up to a group."""
    pixels = CPU_PIXELS if device is None else DEVICE_PIXELS
    fitting = max(1, pixels // request.size**2)
    return min(request.group_size, 1 << (fitting.bit_length() - 1))


def produce(
    request: Request,
    count: int,
    kinds: tuple[str, ...],
    device: torch.device | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Fields]:
    """Render the first `count` items of a set: {kind: {field: [count, ...]}}."""
    result: dict[str, Fields] = {}
    done = 0
    for rendered in render_groups(request, range(-(-count // request.group_size)), kinds, device):
        done = collect(result, rendered, done, count)
        if progress is not None:
            progress(done, count)
        if done == count:
            break
    return result


def render_groups(
    request: Request, groups: range, kinds: tuple[str, ...], device: torch.device | None = None
) -> Iterator[dict[str, Fields]]:
    """Yield chunk after chunk; chunks are always whole, whatever length the set has."""
    step = chunk_size(request, device)
    for group in groups:
        with one_thread():
            atlas, items = atlas_on(device), request.draw(group)
        for start in range(0, request.group_size, step):
            chunk = take(items, slice(start, start + step))
            with one_thread():
                chunk = chunk if device is None else move(chunk, device)
                rendered = request.render(chunk, kinds, atlas)
            yield rendered


def collect(result: dict[str, Fields], rendered: dict[str, Fields], done: int, count: int) -> int:
    """Copy a chunk to its place in the result; returns the number of items there now."""
    for kind, fields in rendered.items():
        for name, tensor in fields.items():
            whole = result.setdefault(kind, {}).setdefault(
                name, tensor.new_empty((count, *tensor.shape[1:]))
            )
            length = min(len(tensor), count - done)
            whole[done : done + length] = tensor[:length]
    return done + length
