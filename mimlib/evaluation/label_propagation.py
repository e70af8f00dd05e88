"""Label propagation as a measurement: how well frozen features follow objects through videos."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat

import torch

from mimlib.checks import check_range
from mimlib.data.videos.davis import DavisConfig
from mimlib.data.videos.masks import Video
from mimlib.data.videos.world import WorldVideosConfig
from mimlib.evaluation.measurement import evaluating
from mimlib.evaluation.propagation import (
    FeatureMaps,
    PropagationConfig,
    encoder_maps,
    pixel_maps,
    propagate,
)
from mimlib.metrics.videos import VideoScores
from mimlib.protocol import Trainable


@dataclass(frozen=True, kw_only=True)
class LabelPropagationConfig:
    """J and F of the objects of the first frame, followed by the encoder's features."""

    source: DavisConfig | WorldVideosConfig
    propagation: PropagationConfig = PropagationConfig()
    num_videos: int = 0  # the first so many; 0: all
    name: str = "videos"

    def __post_init__(self) -> None:
        check_range(self, "num_videos", least=0, hint="0 means all")

    def build(self) -> "LabelPropagation":
        """Make the measurement with its videos."""
        return LabelPropagation(self.source.build(), self)


class LabelPropagation:
    """Follow objects by features, and by nothing but pixels, to compare with."""

    def __init__(self, videos: list[Video], config: LabelPropagationConfig) -> None:
        self.name, self.config = config.name, config
        self.videos = videos[: config.num_videos or None]
        self._pixels: dict[int, Mapping[str, float]] = {}  # stride -> numbers

    def run(self, model: Trainable, device: torch.device) -> Mapping[str, float]:
        """Return j_and_f, j_mean, j_recall, f_mean, f_recall, and the same of pixels_ alone."""
        encoder, stride = model.encoder, model.encoder.stride
        with evaluating(encoder):
            found = self.score(encoder_maps(encoder), stride, device)
        if stride not in self._pixels:
            self._pixels[stride] = self.score(pixel_maps(stride), stride, device)
        pixels = self._pixels[stride]
        return {**found, **{f"pixels_{name}": value for name, value in pixels.items()}}

    def score(
        self, features: FeatureMaps | None, stride: int, device: torch.device
    ) -> dict[str, float]:
        """Propagate the objects of all videos by some features of their frames; None: they stay."""
        scores = VideoScores()
        for video in self.videos:
            first = video.masks[0]
            found, true = [], []
            frames, how = video.frames, self.config.propagation
            answers = repeat(first)
            if features is not None:
                answers = propagate(frames, first.to(device), features, stride, how)
            # as official: neither the first frame nor the last one counts
            for index, answer in zip(range(1, len(video.masks) - 1), answers):
                mask = video.masks[index]
                if mask is not None:
                    found.append(answer)
                    true.append(mask)
            if not true:
                raise ValueError(
                    f"{video.name} has no mask between its first and its last frame: there is "
                    "nothing to compare with; use `propagate` to follow without measuring"
                )
            objects = torch.unique(first[first > 0]).tolist()
            scores.update(found, true, objects)
        return scores.compute()
