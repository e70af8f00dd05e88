"""Depth from one image: the encoder fine-tuned under a small convolutional decoder."""

from dataclasses import dataclass
from math import log
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from mimlib.data.batches import DenseBatch
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.patches import normalize
from mimlib.protocol import Output
from mimlib.tasks.heads import UpsamplingHead, patch_map
from mimlib.tasks.metrics import depth_metrics
from mimlib.tasks.task import Task, check_dense


@dataclass(frozen=True, kw_only=True)
class DepthTaskConfig:
    """Fine-tuning for depth."""

    encoder: ViTConfig
    channels: int = 64  # of the decoder's coarsest stage; halved with every doubling of the map
    typical_depth: float = 3.0  # metres; what the untrained decoder predicts, about

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be 1 or more, got {self.channels}")
        if self.typical_depth <= 0:
            raise ValueError(f"typical_depth is in metres, above 0; got {self.typical_depth}")

    def build(self) -> "DepthTask":
        """Make the task, freshly initialised."""
        return DepthTask(self)


class DepthViews(NamedTuple):
    """Normalised images and what they should give."""

    images: Tensor  # [B, 3, H, W] float32, ImageNet-normalised
    depth: Tensor  # [B, H, W] float32 metres along the optical axis
    valid: Tensor  # [B, H, W] bool


class DepthTask(Task):
    """Predict log depth and compare it where the truth is known.

    The loss is mean |log y - log y*| over the valid pixels of the batch: a relative error, as in
    the log space of Eigen et al. 2014 (arXiv 1406.2283, section 3.2), with absolute instead of
    squared differences so that edges weigh less, and without their scale-invariant term: scale
    is to be learnt here, metres are measured.
    """

    def __init__(self, config: DepthTaskConfig) -> None:
        super().__init__()
        self.encoder = config.encoder.build()
        self.head = UpsamplingHead(
            self.encoder.width,
            self.encoder.stride,
            config.channels,
            start=log(config.typical_depth),
        )

    def sample_views(self, batch: DenseBatch, generator: torch.Generator) -> DepthViews:
        """Normalise the images; nothing is random here.

        Raises:
            ValueError: on sizes that do not fit, no valid pixel, or valid depth not above zero.
        """
        check_dense(batch, may_be_empty=not self.training)
        if batch.target.is_cpu and not (batch.target[batch.valid] > 0).all():
            lowest = float(batch.target[batch.valid].min())
            raise ValueError(
                f"valid depth must be above 0 metres, got {lowest}; mark missing depth as not valid"
            )
        return DepthViews(normalize(batch.images), batch.target, batch.valid)

    def predict(self, images: Tensor) -> Tensor:
        """Return log depth [B, H, W], depth in metres, for normalised images [B, 3, H, W]."""
        size = (images.shape[-2], images.shape[-1])
        return self.head(patch_map(self.encoder(images)), size)[:, 0]

    def forward(self, views: DepthViews) -> Output:
        """Return the loss and the predicted depth in metres beside the true one."""
        log_depth = self.predict(views.images)  # [B, H, W]
        target = torch.where(views.valid, views.depth, 1.0).log()  # whatever is stored elsewhere
        error = (log_depth - target).abs() * views.valid
        loss = error.sum() / views.valid.sum().clamp(min=1)
        return Output(
            loss=loss,
            terms={"log_l1": loss.detach()},
            prediction=log_depth.detach().exp(),
            target=views.depth,
            mask=views.valid,
        )

    def metrics(self) -> MetricCollection:
        """Return rmse (metres), rel, log_rmse and delta_1."""
        return depth_metrics()
