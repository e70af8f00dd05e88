"""Clips of the world with the masks of their objects."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mimlib import world
from mimlib.data.videos.masks import Video
from mimlib.world.rooms.levels import NUM_ROOM_CLASSES


@dataclass(frozen=True, kw_only=True)
class WorldVideosConfig:
    """Clips of the embedded world; things that are seen well in the first frame are followed."""

    count: int  # clips
    frames: int = 8  # of each, T
    size: int = 64  # pixels, side of a frame
    seed: int = 0  # of the scenes
    least_share: float = 0.02  # of the first frame that a thing has to cover, or be the largest

    def build(self) -> list[Video]:
        """Render the clips, or read them from the cache."""
        truth = ("image", "instances")
        clips = world.clips(self.count, self.frames, self.size, self.seed, truth=truth)
        return [
            Video(f"clip {index}", frames, number_objects(ids, self.least_share))
            for index, (frames, ids) in enumerate(zip(clips["image"], clips["instances"]))
        ]


def number_objects(instances: Tensor, least_share: float) -> Tensor:
    """Number the things that cover a share of the first frame from 1; all else is 0.

    The world's ids [T, H, W] int64, floor, walls and ceiling first, become uint8.
    """
    areas = torch.bincount(instances[0].flatten(), minlength=int(instances.max()) + 1)
    areas[:NUM_ROOM_CLASSES] = 0
    chosen = (areas >= least_share * instances[0].numel()) | (areas == areas.max())
    chosen &= areas > 0
    return (chosen.cumsum(0) * chosen).to(torch.uint8)[instances]
