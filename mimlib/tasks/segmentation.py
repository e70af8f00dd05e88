"""Semantic segmentation: the encoder fine-tuned under a head that gives every pixel a class."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, pad
from torchmetrics import MetricCollection

from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DenseBatch
from mimlib.data.dense.label_maps import UNLABELED
from mimlib.data.dense.views import LONGEST
from mimlib.encoders import EncoderConfig
from mimlib.encoders.pyramid import Pyramid, build_encoder
from mimlib.layers.patches import normalize
from mimlib.metrics.dense import segmentation_metrics
from mimlib.protocol import Output
from mimlib.tasks.heads.linear import UpsamplingHead, patch_map
from mimlib.tasks.heads.segmentation import SemanticFPNHead, UPerNetHead, auxiliary_head
from mimlib.tasks.task import Task, check_labels, check_truth
from mimlib.tasks.tiling import average_windows

PYRAMID_HEADS = {"upernet": UPerNetHead, "semantic_fpn": SemanticFPNHead}
AUXILIARY_MAP = 2  # as official: the map of the encoder's own stride


@dataclass(frozen=True, kw_only=True)
class SegmentationTaskConfig:
    """Fine-tuning for a class per pixel, and how images of any size are measured.

    small: a few convolutions on the last tokens, learns in minutes.
    upernet, semantic_fpn: the heads of the papers, on four maps; see heads/segmentation.py.
    """

    encoder: EncoderConfig
    num_classes: int  # G
    head: Literal["small", "upernet", "semantic_fpn"] = "small"
    channels: int = 64  # of the head; `small`: of its coarsest stage, halved with every doubling
    blocks: tuple[int, ...] = (-1,)  # that maps are made from: the last, or four; not for `small`
    dropout: float = 0.0  # of the channels before the classes, 0.1 as official; not for `small`
    auxiliary_weight: float = 0.4  # as official: of the loss of UPerNet's auxiliary head; 0: none
    short_side: int = 0  # evaluation: pixels, to which images are resized; 0: as they are
    window: int = 0  # evaluation: pixels, side of a window slid over the image; 0: the whole image
    overlap: float = 1 / 3  # evaluation: share of a window that the next one covers, too

    def __post_init__(self) -> None:
        check_positive(self, "channels")
        check_range(self, "num_classes", least=2)
        check_range(self, "dropout", "overlap", least=0, below=1)
        check_range(self, "auxiliary_weight", "short_side", "window", least=0)
        if self.window % self.encoder.patch_size:
            raise ValueError(
                f"window is {self.window} pixels; expected a multiple of the patch side "
                f"{self.encoder.patch_size}"
            )

    def build(self) -> "SegmentationTask":
        """Make the task, freshly initialised."""
        return SegmentationTask(self)


class SegmentationTask(Task):
    """Classify every pixel; the loss is the mean cross-entropy over the valid ones.

    # differs from official: pixels without a class do not count in the mean either.

    In training mode images go through as they are. In evaluation mode they may have any size, see
    `predict_any`, and the loss leaves the auxiliary head out.
    """

    def __init__(self, config: SegmentationTaskConfig) -> None:
        super().__init__()
        self.auxiliary = None  # trains along, where there is one
        self.config, self.num_classes = config, config.num_classes
        channels, num_classes = config.channels, config.num_classes
        if config.head == "small":
            self.encoder = config.encoder.build()
            width, self.multiple = self.encoder.width, self.encoder.stride
            self.head = UpsamplingHead(width, self.multiple, channels, num_classes)
            return
        self.encoder = build_encoder(config.encoder)
        self.multiple = 2 * self.encoder.stride  # pixels of a cell of the coarsest map
        self.pyramid = Pyramid(config.encoder, config.blocks)
        widths, dropout = self.pyramid.widths, config.dropout
        self.head = PYRAMID_HEADS[config.head](widths, channels, num_classes, dropout)
        if config.head == "upernet" and config.auxiliary_weight:
            width = widths[AUXILIARY_MAP]
            self.auxiliary = auxiliary_head(width, channels, num_classes, dropout)

    def sample_views(self, batch: DenseBatch, generator: torch.Generator) -> DenseBatch:
        """Normalise the images; refuse sizes that do not fit, and classes outside the range."""
        check_truth(batch, may_be_empty=True)  # a crop may show nothing that has a class
        if batch.target.is_cpu:
            check_labels(batch.target[batch.valid], self.num_classes)
        return DenseBatch(normalize(batch.images), batch.target.long(), batch.valid)

    def predict(self, images: Tensor) -> Tensor:
        """Return logits [B, G, H, W] for normalised images [B, 3, H, W] as they are."""
        return self.predict_all(images)["cross_entropy"]

    def predict_all(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of all heads by the names of their losses; one head in evaluation."""
        size = (images.shape[-2], images.shape[-1])
        if self.config.head == "small":
            return {"cross_entropy": self.head(patch_map(self.encoder(images)), size)}
        # Channels last: on a CPU interpolation then takes an eighth of the time.
        maps = self.pyramid(self.encoder, images)
        maps = [level.contiguous(memory_format=torch.channels_last) for level in maps]
        coarse = {"cross_entropy": self.head(maps)}
        if self.training and self.auxiliary is not None:
            coarse["auxiliary"] = self.auxiliary(maps[AUXILIARY_MAP])
        return {n: interpolate(c.float(), size=size, mode="bilinear") for n, c in coarse.items()}

    def predict_any(self, images: Tensor) -> Tensor:
        """Return logits [B, G, H, W] for normalised images of any size.

        They are resized to `short_side`, predicted whole or window by window with the logits
        averaged, and the logits resized to the size of the images. Whatever does not fill a
        window, or the cells of the coarsest map, is padded below and on the right by the mean
        colour.
        """
        config, size = self.config, images.shape[-2:]
        if config.short_side:
            factor = config.short_side * min(1 / min(size), LONGEST / max(size))
            sides = [max(1, round(side * factor)) for side in size]
            images = interpolate(images, size=sides, mode="bilinear", antialias=True)
        height, width = images.shape[-2:]
        whole = tuple(side + -side % self.multiple for side in (height, width))
        window = (config.window, config.window) if config.window else whole
        below, right = max(0, window[0] - height), max(0, window[1] - width)
        images = pad(images, (0, right, 0, below))
        if config.window:
            # differs from official: windows are spread evenly, where for segmentation they are laid
            # a stride apart and the last one is pushed back to the border; there are as many.
            logits = average_windows(self.predict, (images,), window, config.overlap)
        else:
            logits = self.predict(images)
        logits = logits[..., :height, :width]
        return logits if logits.shape[-2:] == size else interpolate(logits, size, mode="bilinear")

    def forward(self, views: DenseBatch) -> Output:
        """Return the loss and the predicted classes beside the true ones."""
        if self.training:
            logits = self.predict_all(views.images)
        else:
            logits = {"cross_entropy": self.predict_any(views.images)}
        counted = views.target.masked_fill(~views.valid, UNLABELED)
        num_valid = views.valid.sum().clamp(min=1)
        losses = {name: summed_loss(each, counted) / num_valid for name, each in logits.items()}
        loss = losses["cross_entropy"]
        if "auxiliary" in losses:
            loss = loss + self.config.auxiliary_weight * losses["auxiliary"]
        return Output(
            loss=loss,
            terms={name: each.detach() for name, each in losses.items()},
            # Of argmax and max along the classes, max is the one that is fast on a CPU.
            prediction=logits["cross_entropy"].detach().max(dim=1).indices,
            target=views.target,
            mask=views.valid,
            weight=views.valid.sum(),
        )

    def metrics(self) -> MetricCollection:
        """Return accuracy over pixels, mean_accuracy and miou over classes."""
        return segmentation_metrics(self.num_classes)


def summed_loss(logits: Float[Tensor, "B G H W"], classes: Int[Tensor, "B H W"]) -> Tensor:
    """Add up the cross-entropy of all pixels that have a class.

    Of logits that are stored channels last the rows are there already; on a CPU this takes half the
    time of a cross-entropy over maps.
    """
    rows = rearrange(logits, "b g height width -> (b height width) g")
    return cross_entropy(rows, classes.flatten(), ignore_index=UNLABELED, reduction="sum")
