"""Probes: the encoder is frozen and only a linear layer learns what its features tell.

MAE (arXiv 2111.06377), appendix A.1, "Linear probing", table 10; per patch, the same for
semantics. `frozen.py` does the same in seconds on features extracted once.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional
from torchmetrics import MetricCollection

from mimlib.data.batches import DenseBatch, LabelBatch
from mimlib.encoders import EncoderConfig
from mimlib.layers.patches import normalize
from mimlib.metrics.dense import classification_metrics, segmentation_metrics
from mimlib.protocol import Features, Output
from mimlib.tasks.heads.linear import check_head, pooled, probe_head
from mimlib.tasks.task import Task, check_dense, check_labels


@dataclass(frozen=True, kw_only=True)
class LinearProbeConfig:
    """Linear classification of frozen images."""

    encoder: EncoderConfig
    num_classes: int
    pool: Literal["class_token", "mean"] = "class_token"  # as official; or mean of patch tokens

    def __post_init__(self) -> None:
        check_head(self.num_classes, self.pool, self.encoder.class_token)

    def build(self) -> "LinearProbe":
        """Make the probe around a freshly initialised encoder."""
        return LinearProbe(self)


@dataclass(frozen=True, kw_only=True)
class PatchProbeConfig:
    """Linear classification of frozen patches: what is seen here?"""

    encoder: EncoderConfig
    num_classes: int

    def __post_init__(self) -> None:
        check_head(self.num_classes, "mean", self.encoder.class_token)

    def build(self) -> "PatchProbe":
        """Make the probe around a freshly initialised encoder."""
        return PatchProbe(self)


class ProbeViews(NamedTuple):
    """Normalised images and the classes of the images or of their patches."""

    images: Tensor  # [B, 3, H, W] float32, ImageNet-normalised
    labels: Tensor  # [B] or [B, N] int64
    counted: Tensor  # same shape, bool, False where the truth is unknown


class FrozenTask(Task):
    """A probe: BatchNorm without affine parameters and a linear layer on a frozen encoder.

    The encoder gets no gradient and stays in evaluation mode, whatever the mode of the probe.
    `forward` in training mode updates the running statistics of the probe's BatchNorm.
    """

    def __init__(self, config: LinearProbeConfig | PatchProbeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build().requires_grad_(False)
        self.head = probe_head(self.encoder.width, config.num_classes)
        self.train()

    def train(self, mode: bool = True) -> "FrozenTask":
        """Set the mode of the head alone."""
        super().train(mode)
        self.encoder.eval()
        return self

    def look(self, images: Tensor) -> Features:
        """Encode normalised images [B, 3, H, W] without gradient."""
        with torch.no_grad():
            return self.encoder(images)

    def score(self, samples: Tensor, labels: Tensor, counted: Tensor) -> Output:
        """Classify features [..., D]; the loss is the mean over those that count."""
        shape = samples.shape[:-1]
        logits = self.head(samples.flatten(0, -2)).float()  # [K, G]
        targets = labels.flatten().masked_fill(~counted.flatten(), -1)
        total = functional.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
        loss = total / counted.sum().clamp(min=1)
        return Output(
            loss=loss,
            terms={"cross_entropy": loss.detach()},
            prediction=logits.detach().argmax(dim=1).view(shape),
            target=labels,
            mask=counted,
            weight=counted.sum(),
        )


class LinearProbe(FrozenTask):
    """Classify images by their class token or their mean patch token."""

    def sample_views(self, batch: LabelBatch, generator: torch.Generator) -> ProbeViews:
        """Normalise the images; nothing is random here.

        Raises:
            ValueError: if a label is outside [0, num_classes).
        """
        check_labels(batch.labels, self.config.num_classes)
        counted = torch.ones_like(batch.labels, dtype=torch.bool)
        return ProbeViews(normalize(batch.images), batch.labels, counted)

    def forward(self, views: ProbeViews) -> Output:
        """Return the cross-entropy, the predicted and the true classes."""
        samples = pooled(self.look(views.images), self.config.pool)  # [B, D]
        return self.score(samples, views.labels, views.counted)

    def metrics(self) -> MetricCollection:
        """Return accuracy."""
        return classification_metrics(self.config.num_classes)


class PatchProbe(FrozenTask):
    """Classify each patch by its token: its class is what most of its pixels show."""

    def sample_views(self, batch: DenseBatch, generator: torch.Generator) -> ProbeViews:
        """Normalise the images and find each patch's class; nothing is random here.

        Raises:
            ValueError: on sizes that do not fit, no valid pixel, or a class outside the range.
        """
        check_dense(batch, may_be_empty=not self.training)
        labels, counted = majority_classes(
            batch.target, batch.valid, self.encoder.stride, self.config.num_classes
        )
        return ProbeViews(normalize(batch.images), labels, counted)

    def forward(self, views: ProbeViews) -> Output:
        """Return the cross-entropy, the predicted and the true classes."""
        tokens = self.look(views.images).tokens  # [B, N, D]
        return self.score(tokens, views.labels, views.counted)

    def metrics(self) -> MetricCollection:
        """Return accuracy over patches and miou."""
        return segmentation_metrics(self.config.num_classes)


def majority_classes(
    classes: Int[Tensor, "B H W"],
    valid: Bool[Tensor, "B H W"],
    patch_size: int,
    num_classes: int,
) -> tuple[Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Give each patch the class that most of its valid pixels have.

    Args:
        classes: class id of each pixel; anything where not valid.
        valid: where there is ground truth.
        patch_size: side of a patch in pixels, P; divides H and W.
        num_classes: classes, ids 0 to num_classes - 1.

    Returns:
        Class of each patch, the lowest id on a tie, and whether it has a valid pixel at all.

    Raises:
        ValueError: if a valid id is outside the range.
    """
    ids = classes.masked_fill(~valid, 0)
    check_labels(ids, num_classes)
    layout = "b (h p) (w q) -> b (h w) (p q)"
    ids = rearrange(ids, layout, p=patch_size, q=patch_size)  # [B, N, P * P]
    known = rearrange(valid, layout, p=patch_size, q=patch_size)  # [B, N, P * P]
    counts = known.new_zeros(*ids.shape[:2], num_classes, dtype=torch.int64)
    counts.scatter_add_(2, ids.long(), known.long())  # [B, N, G]
    return counts.argmax(dim=2), known.any(dim=2)
