"""Stereo and flow: CroCo's encoder and decoder, kept, under a DPT head (CroCo v2, section 4).

Nothing is masked, both images are encoded whole. The head predicts displacements and one more
channel, the raw scale of the Laplacian loss, which also weighs the windows of tiled prediction.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor
from torchmetrics import MetricCollection

from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DensePairBatch
from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.patches import normalize
from mimlib.metrics.matching import flow_metrics, stereo_metrics
from mimlib.protocol import Output
from mimlib.tasks.heads.dpt import DPTHead, default_hooks
from mimlib.tasks.heads.linear import patch_map
from mimlib.tasks.losses.laplacian import ScaleKind, laplacian_loss
from mimlib.tasks.task import Task, check_truth
from mimlib.tasks.tiling import FLOW_CONFIDENCE, STEREO_CONFIDENCE, Confidence, predict_tiled

MAX_FLOW = 1e4  # pixels; as official: longer vectors are not learnt from


@dataclass(frozen=True, kw_only=True)
class CorrespondenceConfig:
    """What stereo and flow have in common."""

    channels: ClassVar[int]  # of the target
    confidence: ClassVar[Confidence]  # of a tile
    encoder: ViTConfig  # of both images
    decoder: PairDecoderConfig = PairDecoderConfig()
    window: tuple[int, int]  # (H, W) pixels: crop of training, tile of evaluation
    overlap: float = 0.7  # of tiles; as official while training, 0.9 for final results
    scale_widths: tuple[int, int, int, int] = (96, 192, 384, 768)  # of the head's four maps
    head_width: int = 256  # of the head's fused maps

    def __post_init__(self) -> None:
        check_positive(self, "window")
        check_range(self, "overlap", least=0, below=1)

    def build(self) -> "CorrespondenceTask":
        """Make the task, freshly initialised."""
        return CorrespondenceTask(self)


@dataclass(frozen=True, kw_only=True)
class FlowTaskConfig(CorrespondenceConfig):
    """Fine-tuning for optical flow, as CroCo-Flow."""

    channels, confidence = 2, FLOW_CONFIDENCE
    window: tuple[int, int] = (320, 384)
    scale: ScaleKind = "bounded"  # of the Laplacian


@dataclass(frozen=True, kw_only=True)
class StereoTaskConfig(CorrespondenceConfig):
    """Fine-tuning for stereo on rectified pairs, as CroCo-Stereo."""

    channels, confidence = 1, STEREO_CONFIDENCE
    window: tuple[int, int] = (352, 704)
    scale: ScaleKind = "bounded_2"  # of the Laplacian


class CorrespondenceTask(Task):
    """Predict where each pixel of image 1 is in image 2: flow (C = 2) or disparity (C = 1).

    In training mode images go through as they are; in evaluation mode those of another size than
    the window are tiled.
    """

    def __init__(self, config: FlowTaskConfig | StereoTaskConfig) -> None:
        super().__init__()
        self.config, self.channels, self.confidence = config, config.channels, config.confidence
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build(config.encoder)
        self.hooks = default_hooks(config.encoder.depth, config.decoder.depth)
        widths = [config.encoder.width] * config.encoder.depth
        widths += [config.decoder.width] * config.decoder.depth
        widths = [widths[hook] for hook in self.hooks]
        self.head = DPTHead(widths, self.channels + 1, config.scale_widths, config.head_width)

    def sample_views(self, batch: DensePairBatch, generator: torch.Generator) -> DensePairBatch:
        """Normalise the images; refuse what does not fit, no valid pixel, values not finite."""
        check_truth(batch, self.channels, may_be_empty=not self.training)
        image_1, image_2 = normalize(batch.image_1), normalize(batch.image_2)
        return DensePairBatch(image_1, image_2, batch.target, batch.valid)

    def predict(self, image_1: Tensor, image_2: Tensor) -> tuple[Tensor, Tensor]:
        """Return displacements [B, C, H, W] and raw scales [B, H, W] of images as they are."""
        size = (image_1.shape[-2], image_1.shape[-1])
        output = self.head(self.hooked_maps(image_1, image_2), size).float()
        return output[:, :-1], output[:, -1]

    def hooked_maps(self, image_1: Tensor, image_2: Tensor) -> list[Tensor]:
        """Return what the hooked blocks say about image 1, [B, D_i, h, w].

        # as official: the last blocks of encoder and decoder are read after their final norm.
        """
        depth = self.encoder.num_layers
        inside = tuple(hook for hook in self.hooks if hook < depth)
        both = self.encoder(torch.cat([image_1, image_2]), levels=inside)
        embedded = self.decoder.embed(both.tokens).chunk(2)  # [B, N, E] each
        after = tuple(hook - depth for hook in self.hooks if hook >= depth)
        decoded = self.decoder(*embedded, both.grid, levels=after)
        maps = [level.chunk(2)[0] for level in both.levels] + list(decoded.levels)
        if depth - 1 in inside:
            maps[len(inside) - 1] = patch_map(both).chunk(2)[0]
        maps[-1] = patch_map(decoded)
        return maps

    def predict_tiled(
        self, image_1: Tensor, image_2: Tensor, overlap: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the same for images of any size, window by window."""
        window = self.config.window
        overlap = self.config.overlap if overlap is None else overlap
        return predict_tiled(self.predict, image_1, image_2, window, overlap, self.confidence)

    def forward(self, views: DensePairBatch) -> Output:
        """Return the loss and the predicted displacements [B, H, W, C] beside the true ones."""
        whole = self.training or tuple(views.image_1.shape[-2:]) == tuple(self.config.window)
        predict = self.predict if whole else self.predict_tiled
        prediction, raw_scale = predict(views.image_1, views.image_2)
        prediction = rearrange(prediction, "b c height width -> b height width c")
        known = torch.where(views.valid[..., None], views.target, 0.0)
        learned = views.valid & (known.square().sum(-1) < MAX_FLOW**2)
        loss = laplacian_loss(prediction, raw_scale, known, learned, self.config.scale)
        error = (prediction.detach() - known).square().sum(-1).sqrt() * learned
        return Output(
            loss=loss,
            terms={"laplacian": loss.detach(), "epe": error.sum() / learned.sum().clamp(min=1)},
            prediction=prediction.detach(),
            target=known,
            mask=views.valid,
            weight=learned.sum(),
        )

    def metrics(self) -> MetricCollection:
        """Return end-point error, shares of bad pixels and KITTI's outliers."""
        return flow_metrics() if self.channels == 2 else stereo_metrics()
