"""Semantic segmentation: the encoder fine-tuned under a small convolutional decoder."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from mimlib.data.batches import DenseBatch
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.patches import normalize
from mimlib.protocol import Output
from mimlib.tasks.heads import UpsamplingHead, patch_map
from mimlib.tasks.metrics import segmentation_metrics
from mimlib.tasks.task import Task, check_dense, check_labels

UNCOUNTED = -1  # class of pixels without one, for the cross-entropy


@dataclass(frozen=True, kw_only=True)
class SegmentationTaskConfig:
    """Fine-tuning for a class per pixel."""

    encoder: ViTConfig
    num_classes: int
    channels: int = 64  # of the decoder's coarsest stage; halved with every doubling of the map

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be 1 or more, got {self.channels}")
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be 2 or more, got {self.num_classes}")

    def build(self) -> "SegmentationTask":
        """Make the task, freshly initialised."""
        return SegmentationTask(self)


class SegmentationViews(NamedTuple):
    """Normalised images and what their pixels show."""

    images: Tensor  # [B, 3, H, W] float32, ImageNet-normalised
    classes: Tensor  # [B, H, W] int64
    valid: Tensor  # [B, H, W] bool


class SegmentationTask(Task):
    """Classify every pixel; the loss is the mean cross-entropy over the valid ones."""

    def __init__(self, config: SegmentationTaskConfig) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        self.encoder = config.encoder.build()
        self.head = UpsamplingHead(
            self.encoder.width, self.encoder.stride, config.channels, config.num_classes
        )

    def sample_views(self, batch: DenseBatch, generator: torch.Generator) -> SegmentationViews:
        """Normalise the images; nothing is random here.

        Raises:
            ValueError: on sizes that do not fit, no valid pixel, or a class outside the range.
        """
        check_dense(batch, may_be_empty=not self.training)
        if batch.target.is_cpu:
            check_labels(batch.target[batch.valid], self.num_classes)
        return SegmentationViews(normalize(batch.images), batch.target, batch.valid)

    def predict(self, images: Tensor) -> Tensor:
        """Return logits [B, G, H, W] for normalised images [B, 3, H, W]."""
        size = (images.shape[-2], images.shape[-1])
        return self.head(patch_map(self.encoder(images)), size)

    def forward(self, views: SegmentationViews) -> Output:
        """Return the loss and the predicted classes beside the true ones."""
        logits = self.predict(views.images)  # [B, G, H, W]
        counted = views.classes.masked_fill(~views.valid, UNCOUNTED)
        total = cross_entropy(logits, counted, ignore_index=UNCOUNTED, reduction="sum")
        loss = total / views.valid.sum().clamp(min=1)
        return Output(
            loss=loss,
            terms={"cross_entropy": loss.detach()},
            prediction=logits.detach().argmax(dim=1),
            target=views.classes,
            mask=views.valid,
        )

    def metrics(self) -> MetricCollection:
        """Return accuracy over pixels and miou."""
        return segmentation_metrics(self.num_classes)
