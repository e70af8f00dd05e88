"""What every downstream task has beyond a pre-training method: metrics, and checks of its labels.

The checks of values run where the labels are on the CPU. On an accelerator each would make the
processor wait for it, and a wrong value still stops the run: as a device assertion of the
cross-entropy, or as a non-finite loss.
"""

from abc import abstractmethod

from torch import Tensor
from torchmetrics import MetricCollection

from mimlib.data.batches import DenseBatch, DensePairBatch
from mimlib.protocol import Trainable


class Task(Trainable):
    """A downstream task. Its `Output.prediction`, `target` and `mask` feed its metrics.

    The three have one shape; `mask` (None = everything) is True where there is ground truth.
    """

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Return fresh metrics, to be updated with predictions and targets that count."""


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise ValueError for class ids outside [0, num_classes); the message says which."""
    if not labels.is_cpu or labels.numel() == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"class ids run from {low} to {high}, but this task has {num_classes} classes: "
            f"expected ids from 0 to {num_classes - 1}; set num_classes to match the source, "
            "and mark pixels without a class as not valid"
        )


def check_truth(
    batch: DenseBatch | DensePairBatch, channels: int = 0, may_be_empty: bool = False
) -> None:
    """Refuse a batch whose ground truth does not fit its images or cannot be learned from.

    ValueError on different sizes, valid displacements that are not finite, or no valid pixel,
    unless the batch `may_be_empty`, as a part of a held-out set may. Targets of pairs have
    `channels`, 2 for flow, 1 for disparity; 0: of single images.
    """
    images, unit = batch[0], "pairs" if channels else "images"
    if channels and batch.image_2.shape != images.shape:
        raise ValueError(
            f"image_1 has shape {tuple(images.shape)}, image_2 {tuple(batch.image_2.shape)}; both "
            "views of a pair must have one size: crop them alike"
        )
    for name, end in (("target", (channels,) if channels else ()), ("valid", ())):
        got, expected = tuple(getattr(batch, name).shape), (len(images), *images.shape[-2:], *end)
        if got != expected:
            raise ValueError(
                f"{name} has shape {got}, but the images ask for {expected} [B, H, W"
                f"{', C' if end else ''}]; resize the ground truth with the images (nearest, never "
                "interpolated classes); flow has two channels, disparity one"
            )
    if not batch.valid.is_cpu:
        return
    if channels and not batch.target[batch.valid].isfinite().all():
        raise ValueError(
            "valid displacements must be finite; mark unknown ones (inf, nan) as not valid"
        )
    if not may_be_empty and not batch.valid.any():
        raise ValueError(
            f"none of the {batch.valid.numel()} pixels of these {len(images)} {unit} is valid; "
            "check how the source marks missing ground truth"
        )
