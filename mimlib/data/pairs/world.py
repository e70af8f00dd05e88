"""Pairs of views of the embedded world, for cross-view completion, flow and stereo.

Pairs of one image and two homographies are in homography.py, pairs from files in files.py.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mimlib import world
from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DensePairBatch, PairBatch
from mimlib.data.order import Request
from mimlib.data.pairs.views import PairAugmentation
from mimlib.data.source import HeldSource


@dataclass(frozen=True, kw_only=True)
class WorldPairsConfig(PairAugmentation):
    """Two views of one room each, rendered when built and cached on disk by the world."""

    count: int  # pairs in the set
    level: Literal["easy", "textured", "paper", "hard"] = "paper"  # of the world
    seed: int = 0  # of the scenes; sets of other seeds share no scene
    target: Literal["none", "flow", "disparity"] = "none"  # with one both views are cropped alike
    covisibility: tuple[float, float] = (0.0, 1.0)  # share; of `count` pairs only those within
    workers: int = 0  # processes that cut crops ahead of time; worth it from about 128 pixels

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "workers", least=0, hint="0 loads in the training process")
        check_positive(self, "count", hint="ask for at least one pair")
        check_range(self, "covisibility", least=0, most=1, ordered=True)

    def build(self) -> "MemoryPairs":
        """Render the pairs, or read them from the cache; for disparities they are rectified.

        ValueError if no pair has a co-visibility within the range.
        """
        truth = ("image",) if self.target == "none" else ("image", "flow")
        make = world.stereo if self.target == "disparity" else world.pairs
        found = make(self.count, self.stored_size, self.level, self.seed, truth)
        low, high = self.covisibility
        share = found["covisibility"]
        kept = (share >= low) & (share <= high)
        if not kept.any():
            raise ValueError(
                f"none of {self.count} pairs has a co-visibility within {self.covisibility}; at "
                f"level {self.level!r} they run from {share.min():.2f} to {share.max():.2f}"
            )
        if not kept.all():
            found = {name: field[kept] for name, field in found.items()}
        target = found.get("flow")
        if self.target == "disparity":
            target = -target[..., :1]
        # A pixel that image 2 does not show has a flow, too, but nothing to be matched with.
        views, seen = (found["image_1"], found["image_2"]), found.get("visible")
        return MemoryPairs(*views, self, target, seen, self.workers, world.maker())


class MemoryPairs(HeldSource):
    """Pairs of equal size held in memory, with ground truth per pixel of view 1 or without."""

    def __init__(
        self,
        images_1: Tensor,  # [n, 3, H, W] uint8
        images_2: Tensor,  # [n, 3, H, W] uint8
        augmentation: PairAugmentation,
        targets: Tensor | None = None,  # [n, H, W, C] pixels
        valid: Tensor | None = None,  # [n, H, W] bool; None: wherever the target is finite
        workers: int = 0,
        made_by: str = "",
    ):
        if images_1.shape != images_2.shape:
            raise ValueError(
                f"first views have shape {tuple(images_1.shape)}, second ones "
                f"{tuple(images_2.shape)}; expected as many of the same size"
            )
        if targets is not None:
            valid = targets.isfinite().all(-1) if valid is None else valid
            targets = targets.masked_fill(~valid[..., None], 0.0)
        super().__init__((images_1, images_2, targets, valid), workers, made_by)
        self.views, self.targets, self.valid = (images_1, images_2), targets, valid
        self.augmentation = augmentation

    def load(self, request: Request) -> PairBatch | DensePairBatch:
        """Cut and color the pairs of a request; shared crops keep displacements as they are."""
        draws, rows = request.draws(), request.indices.tolist()
        shape, views = self.views[0].shape[-2:], []
        for view, images in enumerate(self.views):
            shared = 0 if self.targets is not None else view
            corners = self.augmentation.corners(draws, shared, len(rows), shape)
            cut = self.augmentation.cut([images[row] for row in rows], corners)
            views.append(self.augmentation.color(cut, draws, view))
        if self.targets is None:
            return PairBatch(*views)
        targets = [self.targets[row].movedim(-1, 0) for row in rows]  # [C, H, W] each
        target = self.augmentation.cut(targets, corners)
        valid = self.augmentation.cut([self.valid[row] for row in rows], corners)
        return DensePairBatch(*views, target.movedim(1, -1), valid)
