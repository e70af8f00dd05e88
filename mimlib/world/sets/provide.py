"""Ready-made sets: views, pairs, stereo and clips, deterministic by seed and kept on disk."""

import time
from collections.abc import Iterable
from typing import TypedDict, Unpack

import torch

from mimlib.places import record_work
from mimlib.world.rendering.truth import WIDE
from mimlib.world.sets.cache import Fields, load, store
from mimlib.world.sets.clips import ClipsRecipe
from mimlib.world.sets.pairs import PairsRecipe, StereoRecipe
from mimlib.world.sets.recipes import Recipe
from mimlib.world.sets.views import ViewsRecipe
from mimlib.world.sets.workers import Progress, count_workers, render_here, render_with_workers


class How(TypedDict, total=False):
    """How a set is made and kept, whatever is in it."""

    cache: bool  # keep the set on disk, or take it from there; True if not given
    device: torch.device | None  # where to render and leave the set; the CPU and the cache if None
    workers: int | None  # processes to render with on the CPU; as many as useful if None
    progress: Progress | None  # called with items done and items in all


def views(
    count: int,
    size: int = 64,
    level: str = "paper",
    seed: int = 0,
    truth: Iterable[str] = ("image",),
    aim: str = "room",
    **how: Unpack[How],
) -> Fields:
    """Render single views of rooms; item i depends only on (seed, i, level, aim, size).

    Args:
        count: number of views, B.
        size: image side in pixels, H = W.
        level: easy, textured, paper, hard or clip: how the rooms look.
        seed: any integer.
        truth: what to render: image [B, 3, H, W] uint8, depth, normals, instances, classes, boxes,
            keypoints, camera; their fields are documented in truth.py.
        aim: room, or object: each camera is aimed at one object, whose class comes as `label` [B]
            int64, an index of CLASSES; all object classes are equally likely.
        how: where and with what, see `How`.

    Raises:
        ValueError: if an argument is out of range or unknown.
    """
    recipe = ViewsRecipe(seed=seed, size=size, level=level, aim=aim)
    return provide(recipe, count, truth, **how)


def pairs(
    count: int,
    size: int = 64,
    level: str = "paper",
    seed: int = 0,
    truth: Iterable[str] = ("image",),
    **how: Unpack[How],
) -> Fields:
    """Render pairs of views of one room each; item i depends only on (seed, i, level, size).

    Always has `covisibility` [B]: the share of pixels the other camera sees, the lesser of both
    ways, as measured on a grid of rays when the pair was chosen.

    Arguments and errors as for `views`, without the level clip. Kinds of truth: those of `views`,
    for both views with names that end in _1 and _2 (image_1, depth_2 ...); flow (`flow`
    [B, H, W, 2] in pixels (dx, dy) from view 1 to view 2, `flow_valid` and `visible` [B, H, W]);
    covisible (`covisible_1`, `covisible_2` [B, H, W] bool, seen by the other camera).
    """
    recipe = PairsRecipe(seed=seed, size=size, level=level)
    return provide(recipe, count, truth, **how)


def stereo(
    count: int,
    size: int = 64,
    level: str = "paper",
    seed: int = 0,
    truth: Iterable[str] = ("image",),
    **how: Unpack[How],
) -> Fields:
    """Render rectified stereo pairs, view 1 on the left; arguments and fields as for `pairs`.

    The disparity is -flow[..., 0]: focal length * baseline / depth, in pixels; flow[..., 1] is 0
    but for rounding. Item i depends only on (seed, i, level, size).
    """
    recipe = StereoRecipe(seed=seed, size=size, level=level)
    return provide(recipe, count, truth, **how)


def clips(
    count: int,
    frames: int = 8,
    size: int = 64,
    seed: int = 0,
    truth: Iterable[str] = ("image",),
    **how: Unpack[How],
) -> Fields:
    """Render clips of moving people and things; item i depends only on (seed, i, size).

    The first frames of a longer clip are the frames of a shorter one. Instance ids are constant.
    Arguments and errors as for `views`; `frames` of each clip, T. Kinds of truth: those of `views`
    with a time axis, [B, T, ...]; flow from each frame to the next, [B, T - 1, H, W, 2]; tracks
    (`tracks` [B, T, Q, 2] pixels of points seen in frame 0, `tracks_valid`, `tracks_visible`
    [B, T, Q], `tracks_instance` [B, Q]).
    """
    recipe = ClipsRecipe(seed=seed, size=size, frames=frames)
    return provide(recipe, count, truth, **how)


def provide(
    recipe: Recipe,
    count: int,
    truth: Iterable[str],
    cache: bool = True,
    device: torch.device | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Fields:
    """Return a set from the cache, rendering the kinds of ground truth that are missing there."""
    if count < 1:
        raise ValueError(f"count {count} is too small; ask for at least 1 item")
    kinds = (*check_kinds(truth, recipe.kinds), *recipe.extras)
    workers = count_workers(count, workers)
    cache, together = cache and device is None, workers > 1 and device is None
    found = {kind: load(recipe.key(kind), count) for kind in kinds} if cache else {}
    missing = tuple(kind for kind in kinds if found.get(kind) is None)
    if missing:
        start = time.perf_counter()
        if together:
            found |= render_with_workers(recipe, count, missing, workers, progress)
        else:
            found |= render_here(recipe, 0, count, missing, device, progress)
        part = "rendering_together" if together else "rendering"
        record_work(part, count, time.perf_counter() - start)
    for kind in missing if cache else ():
        store(recipe.key(kind), count, found[kind])
    joined = {name: tensor for kind in kinds for name, tensor in found[kind].items()}
    return {name: tensor.to(WIDE.get(name, tensor.dtype)) for name, tensor in joined.items()}


def check_kinds(truth: Iterable[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds of ground truth asked for, each once.

    Raises:
        ValueError: if one of them is unknown, or none is given.
    """
    kinds = (truth,) if isinstance(truth, str) else tuple(dict.fromkeys(truth))
    unknown = [kind for kind in kinds if kind not in allowed]
    if unknown or not kinds:
        raise ValueError(f"unknown truth {unknown}; name some of {', '.join(allowed)}")
    return kinds
