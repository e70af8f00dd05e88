"""Render a set: group by group, in chunks that suit the processor, by one or more processes."""

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mimlib.world.rooms.atlas import Atlas, default_atlas
from mimlib.world.rooms.scenes import take
from mimlib.world.sets.recipes import Recipe
from mimlib.world.sets.threads import one_thread

Progress = Callable[[int, int], None]  # items done, items in all
Fields = dict[str, Tensor]
CPU_PIXELS, DEVICE_PIXELS = 1 << 16, 1 << 19  # rendered in one call


@lru_cache(maxsize=2)
def atlas_on(device: torch.device | None) -> Atlas:
    """Return the default atlas on a device."""
    return default_atlas() if device is None else default_atlas().to(device)


def chunk_size(recipe: Recipe, device: torch.device | None) -> int:
    """Return how many items to render in one call, a power of two up to a group."""
    pixels = CPU_PIXELS if device is None else DEVICE_PIXELS
    fitting = max(1, pixels // recipe.size**2)
    return min(recipe.group_size, 1 << (fitting.bit_length() - 1))


def render_groups(
    recipe: Recipe, groups: range, kinds: tuple[str, ...], device: torch.device | None = None
) -> Iterator[dict[str, Fields]]:
    """Yield chunk after chunk; chunks are always whole, whatever length the set has."""
    step = chunk_size(recipe, device)
    for group in groups:
        with one_thread():
            atlas, items = atlas_on(device), recipe.draw(group)
        for start in range(0, recipe.group_size, step):
            with one_thread():
                chunk = take(items, slice(start, start + step))
                if device is not None:
                    chunk = tree_map(lambda tensor: tensor.to(device), chunk)
                rendered = recipe.render(chunk, kinds, atlas)
            yield rendered


def render_here(
    recipe: Recipe,
    first: int,
    count: int,
    kinds: tuple[str, ...],
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> dict[str, Fields]:
    """Render items in this process: {kind: {field: [count, ...]}}.

    Args:
        recipe: the set.
        first: group to begin with.
        count: items from there on.
        kinds: kinds of ground truth.
        device: where to render; the CPU if None.
        progress: called with items done and items in all.
    """
    result: dict[str, Fields] = {}
    done = 0
    groups = range(first, first - (-count // recipe.group_size))
    for rendered in render_groups(recipe, groups, kinds, device):
        done = collect(result, rendered, done, count)
        if progress is not None:
            progress(done, count)
        if done == count:
            break
    return result


def collect(result: dict[str, Fields], rendered: dict[str, Fields], done: int, count: int) -> int:
    """Copy a chunk to its place in the result; returns the number of items there now."""
    for kind, fields in rendered.items():
        for name, tensor in fields.items():
            here = result.setdefault(kind, {})
            if name not in here:
                here[name] = tensor.new_empty((count, *tensor.shape[1:]))
            length = min(len(tensor), count - done)
            here[name][done : done + length] = tensor[:length]
    return done + length
