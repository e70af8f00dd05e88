"""Pairs of views of the embedded world, for cross-view completion, flow and stereo.

Pairs of one image and two homographies are in homography.py, pairs from files in files.py.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mimlib import world
from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DensePairBatch, PairBatch
from mimlib.data.order import Request
from mimlib.data.pairs.views import COLOR, CROP, PairAugmentation
from mimlib.data.source import IndexedSource, fingerprint, sample_of
from mimlib.data.transforms.colors import jitter_colors
from mimlib.data.transforms.crops import crop_corners, cut


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
        low, high = self.covisibility
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"covisibility {self.covisibility} is no range of shares; expected 0 <= low <= "
                "high <= 1"
            )

    def build(self) -> "MemoryPairs":
        """Render the pairs, or read them from the cache; for disparities they are rectified.

        Raises:
            ValueError: if no pair has a co-visibility within the range.
        """
        truth = ("image",) if self.target == "none" else ("image", "flow")
        make = world.stereo if self.target == "disparity" else world.pairs
        side = self.stored_size
        found = make(self.count, side, level=self.level, seed=self.seed, truth=truth)
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
        return MemoryPairs(
            found["image_1"],
            found["image_2"],
            self,
            targets=target,
            valid=found.get("visible"),
            workers=self.workers,
            made_by=world.maker(),
        )


class MemoryPairs(IndexedSource):
    """Pairs of equal size held in memory, with ground truth per pixel of view 1 or without."""

    def __init__(
        self,
        images_1: Tensor,  # [n, 3, H, W] uint8
        images_2: Tensor,  # [n, 3, H, W] uint8
        augmentation: PairAugmentation,
        targets: Tensor | None = None,  # [n, H, W, C] pixels
        valid: Tensor | None = None,  # [n, H, W] bool; None: wherever the target is finite
        workers: int = 0,
        made_by: str = "",  # what makes the images; empty: they are told by their pixels
    ):
        if images_1.shape != images_2.shape:
            raise ValueError(
                f"first views have shape {tuple(images_1.shape)}, second ones "
                f"{tuple(images_2.shape)}; expected as many of the same size"
            )
        if targets is not None:
            valid = targets.isfinite().all(-1) if valid is None else valid
            targets = targets.masked_fill(~valid[..., None], 0.0)
        self.views = (images_1, images_2)
        self.augmentation = augmentation
        self.targets = targets
        self.valid = valid
        self.workers = workers
        self.made_by = made_by

    def __len__(self) -> int:
        return len(self.views[0])

    def identity(self) -> str:
        """Return what makes the pairs, or a hash of some and of what comes with them."""
        if self.made_by:
            return f"{len(self)} images, {self.made_by}"
        return fingerprint(len(self), *sample_of(*self.views, self.targets, self.valid))

    def load(self, request: Request) -> PairBatch | DensePairBatch:
        """Cut and color the pairs of a request; shared crops keep displacements as they are."""
        draws = request.draws()
        corners = [self._corners(draws, view) for view in range(2)]
        if self.targets is not None:
            corners[1] = corners[0]
        views = [self._cut(self.views[i], request.indices, corners[i]) for i in range(2)]
        if draws is not None:
            strength = self.augmentation.jitter
            views = [jitter_colors(v, draws[:, c], strength) for v, c in zip(views, COLOR)]
        if self.targets is None:
            return PairBatch(*views)
        target = self._cut(self.targets.movedim(-1, 1), request.indices, corners[0])
        valid = self._cut(self.valid[:, None], request.indices, corners[0])
        return DensePairBatch(*views, target.movedim(1, -1), valid[:, 0])

    def _corners(self, draws: np.ndarray | None, view: int) -> np.ndarray:
        """Return the top left corners of the crops, [B, 2]; the center's [2] without draws."""
        size = self.augmentation.size
        places = np.full(2, 0.5) if draws is None else draws[:, CROP[view]]
        return crop_corners(places, *self.views[0].shape[-2:], (size, size))

    def _cut(self, fields: Tensor, indices: np.ndarray, corners: np.ndarray) -> Tensor:
        size = (self.augmentation.size, self.augmentation.size)
        if fields.shape[-2:] == size:
            return fields[torch.from_numpy(indices)]
        corners = np.broadcast_to(corners, (len(indices), 2))
        chosen = zip(indices.tolist(), corners)
        return torch.stack([cut(fields[index], corner, size) for index, corner in chosen])
