"""Sets of views, pairs and clips: drawn by seed, rendered in chunks, kept on disk."""

from collections.abc import Iterable

import torch

from mimlib.world.cache import load, store
from mimlib.world.production import Fields, Progress, Request, produce
from mimlib.world.truth import WIDE
from mimlib.world.views import VIEW_KINDS


def views(
    count: int,
    size: int = 64,
    level: str = "paper",
    seed: int = 0,
    truth: Iterable[str] = ("image",),
    aim: str = "room",
    cache: bool = True,
    *,
    device: torch.device | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Fields:
    """Render single views of rooms; item i depends only on (seed, i, level, aim, size).

    Args:
        count: number of views, B.
        size: image side in pixels, H = W.
        level: easy, paper, hard or clip: how the rooms look.
        seed: any integer.
        truth: what to render: image [B, 3, H, W] uint8 and any kind of VIEW_TRUTH: depth,
            normals, instances, classes, boxes, keypoints, camera.
        aim: room, or object: each camera is aimed at one object, whose class comes as `label` [B]
            int64, an index of CLASSES; all object classes are equally likely.
        cache: keep the set on disk, or take it from there.
        device: where to render and leave the set; the CPU and the cache if None.
        workers: processes to render with; as many as useful if None.
        progress: called with items done and items in all.

    Raises:
        ValueError: if an argument is out of range or unknown.
    """
    request = Request(kind="views", seed=seed, size=size, level=level, aim=aim)
    kinds = check_kinds(truth, VIEW_KINDS) + (("label",) if aim == "object" else ())
    return provide(request, count, kinds, cache, device, workers, progress)


def check_kinds(truth: Iterable[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds of ground truth asked for, each once.

    Raises:
        ValueError: if one of them is unknown, or none is given.
    """
    kinds = (truth,) if isinstance(truth, str) else tuple(dict.fromkeys(truth))
    unknown = [kind for kind in kinds if kind not in allowed]
    if unknown or not kinds:
        raise ValueError(f"truth {unknown or 'is empty'}: choose from {', '.join(allowed)}")
    return kinds


def provide(
    request: Request,
    count: int,
    kinds: tuple[str, ...],
    use_cache: bool,
    device: torch.device | None,
    workers: int | None,
    progress: Progress | None,
) -> Fields:
    """Return a set from the cache, rendering what is missing there."""
    if count < 1:
        raise ValueError(f"count {count} is too small; ask for at least 1 item")
    use_cache = use_cache and device is None
    found: dict[str, Fields] = {}
    if use_cache:
        cached = {kind: load(request.key(kind), count) for kind in kinds}
        found = {kind: fields for kind, fields in cached.items() if fields is not None}
    missing = tuple(kind for kind in kinds if kind not in found)
    if missing:
        rendered = produce(request, count, missing, device, workers, progress)
        found |= rendered
        for kind in missing if use_cache else ():
            store(request.key(kind), count, rendered[kind])
    joined = {name: tensor for kind in kinds for name, tensor in found[kind].items()}
    return {name: tensor.to(WIDE.get(name, tensor.dtype)) for name, tensor in joined.items()}
