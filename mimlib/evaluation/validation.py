"""Measurements on held-out images, for the trainer to run while it trains or for anyone by hand.

Held-out images come un-augmented from `source.first` and are kept between measurements. A
measurement leaves the model's mode and parameters as they were.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from mimlib.checks import check_positive, check_range
from mimlib.data.dense.depth import DepthFilesConfig
from mimlib.data.dense.segmentation import SegmentationFilesConfig
from mimlib.data.images.configs import ImageFolderConfig, WorldImagesConfig
from mimlib.data.matching.source import MatchingFilesConfig
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.evaluation.measurement import Measurement, answer_blind, evaluating, split
from mimlib.metrics.dense import as_floats, update_metrics
from mimlib.protocol import Trainable
from mimlib.tasks.task import Task

SourceConfig = WorldImagesConfig | ImageFolderConfig
DenseConfig = DepthFilesConfig | SegmentationFilesConfig


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Loss and metrics of what is being trained, on held-out images."""

    source: SourceConfig | DenseConfig | WorldPairsConfig | MatchingFilesConfig
    num_images: int = 256  # as `source.first` chooses them; 0: the whole source, read every time
    batch_size: int = 64  # images measured at once
    seed: int = 0  # of what the views draw, for instance masks; the same draws every time
    name: str = "validation"

    def __post_init__(self) -> None:
        check_positive(self, "batch_size")
        check_range(self, "num_images", least=0, hint="0 means all")

    def build(self) -> "Validation":
        """Make the measurement with its source or sources."""
        return Validation(self.source.build(), self)


class Validation(Measurement):
    """Run a method or task on held-out images in evaluation mode."""

    def run(self, model: Trainable, device: torch.device) -> Mapping[str, float]:
        """Return `loss`, the mean over all that counts in it, and for a task its metrics.

        Raises ValueError if there is no ground truth at all.
        """
        generator = torch.Generator(device).manual_seed(self.config.seed)
        metrics = model.metrics().to(device) if isinstance(model, Task) else None
        losses, counts = [], []
        with evaluating(model):
            for batch in self._batches(device):
                output = model(model.sample_views(batch, generator))
                losses.append(output.loss)
                items = torch.tensor(len(batch[0]))
                counts.append(items if output.weight is None else output.weight)
                if metrics is not None:
                    update_metrics(metrics, output)
        measured = as_floats(metrics) if metrics is not None else {}
        weights = torch.stack(counts).to(device, torch.float32)
        return {"loss": float(torch.stack(losses) @ weights / weights.sum()), **measured}

    def run_blind(self, task: Task, labeled: NamedTuple) -> Mapping[str, float]:
        """Return the metrics of `answer_blind` to dense labels, one answer for all images."""
        metrics = task.metrics()
        metrics.update(*answer_blind(labeled[-2:], self.images[-2:]))
        return as_floats(metrics)

    def _batches(self, device: torch.device) -> Iterator[NamedTuple]:
        size = self.config.batch_size
        parts = [self.images] if self.config.num_images else self.source.once(size)
        for part in parts:
            yield from split(part, size, device)
