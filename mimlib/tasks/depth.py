"""Depth from one image: the encoder fine-tuned under a small convolutional decoder, or DPT's.

The small one predicts log depth, learns in minutes and is what the lessons use. The other is the
protocol of MultiMAE (arXiv 2204.01678, appendix) that CroCo's NYUv2 numbers come nearest to.
"""

from abc import abstractmethod
from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import MetricCollection

from mimlib.checks import check_positive
from mimlib.data.batches import DenseBatch
from mimlib.encoders import EncoderConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.patches import normalize
from mimlib.metrics.dense import depth_metrics
from mimlib.protocol import Output
from mimlib.tasks.heads.dpt import DPTHead, default_hooks
from mimlib.tasks.heads.linear import UpsamplingHead, patch_map
from mimlib.tasks.task import Task, check_truth

BERHU_SHARE = 0.2  # of the largest error: where the reverse Huber loss turns to squares
LEAST_THRESHOLD = 1e-5  # as official: of the reverse Huber loss, where all is learnt


@dataclass(frozen=True, kw_only=True)
class DepthTaskConfig:
    """Fine-tuning for depth under a small decoder."""

    encoder: EncoderConfig
    channels: int = 64  # of the decoder's coarsest stage; halved with every doubling of the map
    typical_depth: float = 3.0  # metres; what the untrained decoder predicts, about

    def __post_init__(self) -> None:
        check_positive(self, "channels", "typical_depth")

    def build(self) -> "LogDepthTask":
        """Make the task, freshly initialised."""
        return LogDepthTask(self)


@dataclass(frozen=True, kw_only=True)
class DPTDepthTaskConfig:
    """Fine-tuning for depth under a DPT head, which reads four blocks, evenly spaced."""

    encoder: ViTConfig
    mean_depth: float = 2.0707764  # metres; as official: of NYUv2, what a prediction of 0 means
    deviation: float = 0.7775723  # metres; as official: what a prediction of 1 adds to it
    scale_widths: tuple[int, int, int, int] = (96, 192, 384, 768)  # of the head's four maps
    head_width: int = 256  # of the head's fused maps

    def __post_init__(self) -> None:
        check_positive(self, "deviation")

    def build(self) -> "DPTDepthTask":
        """Make the task, freshly initialised."""
        return DPTDepthTask(self)


class DepthTask(Task):
    """Predict depth and compare it where the truth is known."""

    def sample_views(self, batch: DenseBatch, generator: torch.Generator) -> DenseBatch:
        """Normalise the images; refuse what does not fit, no valid pixel, depth not above zero."""
        check_truth(batch, may_be_empty=not self.training)
        if batch.target.is_cpu and not (batch.target[batch.valid] > 0).all():
            lowest = float(batch.target[batch.valid].min())
            raise ValueError(
                f"valid depth must be above 0 metres, got {lowest}; mark missing depth as not valid"
            )
        return DenseBatch(normalize(batch.images), batch.target, batch.valid)

    def forward(self, views: DenseBatch) -> Output:
        """Return the loss and the predicted depth in metres beside the true one."""
        prediction = self.predict(views.images)  # [B, H, W]
        target = torch.where(views.valid, views.target, 1.0)  # whatever is stored elsewhere
        loss, name = self.compare(prediction, target, views.valid)
        return Output(
            loss=loss,
            terms={name: loss.detach()},
            prediction=self.meters(prediction.detach()),
            target=views.target,
            mask=views.valid,
            weight=views.valid.sum(),
        )

    @abstractmethod
    def predict(self, images: Tensor) -> Tensor:
        """Return what stands for depth, [B, H, W], for normalised images [B, 3, H, W]."""

    @abstractmethod
    def meters(self, prediction: Tensor) -> Tensor:
        """Turn predictions into depth in metres."""

    @abstractmethod
    def compare(self, prediction: Tensor, depth: Tensor, valid: Tensor) -> tuple[Tensor, str]:
        """Return the loss over the valid pixels of the batch and its name; depth in metres."""

    def metrics(self) -> MetricCollection:
        """Return rmse (metres), rel, log_rmse, delta_1, delta_2 and delta_3."""
        return depth_metrics()


class LogDepthTask(DepthTask):
    """Predict log depth.

    The loss is mean |log y - log y*| over the valid pixels of the batch: a relative error, as in
    the log space of Eigen et al. 2014 (arXiv 1406.2283, section 3.2), with absolute instead of
    squared differences so that edges weigh less, and without their scale-invariant term: scale
    is to be learnt here, metres are measured.
    """

    def __init__(self, config: DepthTaskConfig) -> None:
        super().__init__()
        self.encoder = config.encoder.build()
        width, stride, start = self.encoder.width, self.encoder.stride, log(config.typical_depth)
        self.head = UpsamplingHead(width, stride, config.channels, start=start)

    def predict(self, images: Tensor) -> Tensor:
        """Return log depth [B, H, W], depth in metres, for normalised images [B, 3, H, W]."""
        size = (images.shape[-2], images.shape[-1])
        return self.head(patch_map(self.encoder(images)), size)[:, 0]

    def meters(self, prediction: Tensor) -> Tensor:
        """Take the exponential."""
        return prediction.exp()

    def compare(self, prediction: Tensor, depth: Tensor, valid: Tensor) -> tuple[Tensor, str]:
        """Return the mean absolute difference of logarithms."""
        error = (prediction - depth.log()).abs() * valid
        return error.sum() / valid.sum().clamp(min=1), "log_l1"


class DPTDepthTask(DepthTask):
    """Predict standardised depth with a DPT head, by the reverse Huber loss."""

    def __init__(self, config: DPTDepthTaskConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.hooks = default_hooks(self.encoder.num_layers)
        widths = [self.encoder.width] * len(self.hooks)
        self.head = DPTHead(widths, 1, config.scale_widths, config.head_width)

    def predict(self, images: Tensor) -> Tensor:
        """Return standardised depth [B, H, W] for normalised images [B, 3, H, W].

        # as official: the last of the four blocks is read after the encoder's final norm.
        """
        features = self.encoder(images, levels=self.hooks[:-1])
        maps = [*features.levels, patch_map(features)]
        return self.head(maps, (images.shape[-2], images.shape[-1])).float()[:, 0]

    def meters(self, prediction: Tensor) -> Tensor:
        """Undo the standardisation."""
        return self.config.mean_depth + self.config.deviation * prediction

    def compare(self, prediction: Tensor, depth: Tensor, valid: Tensor) -> tuple[Tensor, str]:
        """Return the reverse Huber loss of standardised depth."""
        target = (depth - self.config.mean_depth) / self.config.deviation
        return reverse_huber(prediction, target, valid), "berhu"


def reverse_huber(
    prediction: Float[Tensor, "B H W"], target: Float[Tensor, "B H W"], valid: Bool[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    """Return the mean reverse Huber loss over the valid pixels of the batch; 0 if there are none.

    Laina et al. 2016 (arXiv 1606.00373), section 3.2: an error e counts |e| up to a threshold c and
    (e^2 + c^2) / (2 c) above it, with c a fifth of the largest error of the batch.

    # as official: of the batch that this process sees at once; smaller ones have other thresholds.
    """
    error = torch.where(valid, prediction - target, 0.0).abs()
    threshold = (BERHU_SHARE * error.detach().max()).clamp(min=LEAST_THRESHOLD)
    large = (error.square() + threshold.square()) / (2 * threshold)
    loss = torch.where(error < threshold, error, large) * valid
    return loss.sum() / valid.sum().clamp(min=1)
