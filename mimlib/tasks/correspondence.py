"""Stereo and flow: CroCo's encoder and decoder, kept, under a DPT head (CroCo v2, section 4).

Nothing is masked, both images are encoded whole. The head predicts displacements and one more
channel, the raw scale of the Laplacian loss, which also weighs the windows of tiled prediction.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torchmetrics import MetricCollection

from mimlib.data.batches import DensePairBatch
from mimlib.encoders.binocular import BinocularConfig
from mimlib.layers.patches import grid_of, normalize
from mimlib.protocol import Output
from mimlib.tasks.dpt import DPTHead, default_hooks
from mimlib.tasks.laplacian import ScaleKind, laplacian_loss
from mimlib.tasks.matching_metrics import flow_metrics, stereo_metrics
from mimlib.tasks.task import Task, check_dense_pairs
from mimlib.tasks.tiling import FLOW_CONFIDENCE, STEREO_CONFIDENCE, Confidence, predict_tiled

MAX_FLOW = 1e4  # pixels; as official: longer vectors are not learnt from


@dataclass(frozen=True, kw_only=True)
class CorrespondenceConfig:
    """What stereo and flow have in common."""

    network: BinocularConfig
    window: tuple[int, int]  # (H, W) pixels: crop of training, tile of evaluation
    overlap: float = 0.7  # of tiles; as official while training, 0.9 for final results
    scale_widths: tuple[int, int, int, int] = (96, 192, 384, 768)  # of the head's four maps
    head_width: int = 256  # of the head's fused maps

    def __post_init__(self) -> None:
        if min(self.window) < 1:
            raise ValueError(f"window {self.window} is no size; expected (height, width) in pixels")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap {self.overlap} is out of range; expected 0 <= overlap < 1")


@dataclass(frozen=True, kw_only=True)
class FlowTaskConfig(CorrespondenceConfig):
    """Fine-tuning for optical flow, as CroCo-Flow."""

    window: tuple[int, int] = (320, 384)
    scale: ScaleKind = "bounded"  # of the Laplacian

    def build(self) -> "CorrespondenceTask":
        """Make the task, freshly initialised."""
        return CorrespondenceTask(self, 2, FLOW_CONFIDENCE)


@dataclass(frozen=True, kw_only=True)
class StereoTaskConfig(CorrespondenceConfig):
    """Fine-tuning for stereo on rectified pairs, as CroCo-Stereo."""

    window: tuple[int, int] = (352, 704)
    scale: ScaleKind = "bounded_2"  # of the Laplacian

    def build(self) -> "CorrespondenceTask":
        """Make the task, freshly initialised."""
        return CorrespondenceTask(self, 1, STEREO_CONFIDENCE)


class CorrespondenceViews(NamedTuple):
    """Normalised images and where the pixels of the first are in the second."""

    image_1: Tensor  # [B, 3, H, W] float32, ImageNet-normalised
    image_2: Tensor  # [B, 3, H, W]
    target: Tensor  # [B, H, W, C] pixels
    valid: Tensor  # [B, H, W] bool


class CorrespondenceTask(Task):
    """Predict where each pixel of image 1 is in image 2: flow (C = 2) or disparity (C = 1).

    In training mode images go through as they are; in evaluation mode those of another size than
    the window are tiled.
    """

    def __init__(
        self,
        config: FlowTaskConfig | StereoTaskConfig,
        channels: int,
        confidence: Confidence,
    ) -> None:
        super().__init__()
        self.config, self.channels, self.confidence = config, channels, confidence
        self.network = config.network.build()
        num_encoder_blocks, widths = self.network.num_encoder_blocks, self.network.level_widths
        self.hooks = default_hooks(num_encoder_blocks, len(widths) - num_encoder_blocks)
        self.head = DPTHead(
            [widths[hook] for hook in self.hooks],
            channels + 1,
            config.scale_widths,
            config.head_width,
        )

    @property
    def encoder(self):
        """The encoder of both images."""
        return self.network.encoder

    def sample_views(
        self, batch: DensePairBatch, generator: torch.Generator
    ) -> CorrespondenceViews:
        """Normalise the images; nothing is random here.

        Raises:
            ValueError: on sizes that do not fit, no valid pixel, or values that are not finite.
        """
        check_dense_pairs(batch, self.channels, may_be_empty=not self.training)
        images = normalize(batch.image_1), normalize(batch.image_2)
        return CorrespondenceViews(*images, batch.target, batch.valid)

    def predict(self, image_1: Tensor, image_2: Tensor) -> tuple[Tensor, Tensor]:
        """Return displacements [B, C, H, W] and raw scales [B, H, W] of images as they are."""
        grid, size = grid_of(image_1, self.encoder.stride), image_1.shape[-2:]
        levels = self.network.levels(image_1, image_2)
        output = self.head([levels[hook] for hook in self.hooks], grid, tuple(size))
        output = output.float()
        return output[:, :-1], output[:, -1]

    def predict_tiled(
        self, image_1: Tensor, image_2: Tensor, overlap: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the same for images of any size, window by window."""
        overlap = self.config.overlap if overlap is None else overlap
        window = self.config.window
        return predict_tiled(self.predict, image_1, image_2, window, overlap, self.confidence)

    def forward(self, views: CorrespondenceViews) -> Output:
        """Return the loss and the predicted displacements [B, H, W, C] beside the true ones."""
        whole = self.training or tuple(views.image_1.shape[-2:]) == tuple(self.config.window)
        predict = self.predict if whole else self.predict_tiled
        prediction, raw_scale = predict(views.image_1, views.image_2)
        prediction = rearrange(prediction, "b c height width -> b height width c")
        known = torch.where(views.valid[..., None], views.target, 0.0)
        learnt = views.valid & (known.square().sum(-1) < MAX_FLOW**2)
        loss = laplacian_loss(prediction, raw_scale, known, learnt, self.config.scale)
        error = (prediction.detach() - known).square().sum(-1).sqrt() * learnt
        return Output(
            loss=loss,
            terms={"laplacian": loss.detach(), "epe": error.sum() / learnt.sum().clamp(min=1)},
            prediction=prediction.detach(),
            target=known,
            mask=views.valid,
        )

    def metrics(self) -> MetricCollection:
        """Return end-point error, shares of bad pixels and KITTI's outliers."""
        return flow_metrics() if self.channels == 2 else stereo_metrics()
