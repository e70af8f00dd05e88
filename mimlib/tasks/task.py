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
    """Refuse class ids outside [0, num_classes).

    Raises:
        ValueError: if an id is outside; the message says which.
    """
    if not labels.is_cpu or labels.numel() == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"class ids run from {low} to {high}, but this task has {num_classes} classes: "
            f"expected ids from 0 to {num_classes - 1}; set num_classes to match the source, "
            "and mark pixels without a class as not valid"
        )


def check_dense(batch: DenseBatch, may_be_empty: bool = False) -> None:
    """Refuse a batch whose target and images do not fit together or that has no ground truth.

    Args:
        batch: images and what is known about their pixels.
        may_be_empty: whether it is fine that no pixel is valid, as in a part of a held-out set.

    Raises:
        ValueError: on different sizes, or if no pixel of the batch is valid.
    """
    expected = (batch.images.shape[0], *batch.images.shape[-2:])
    for name in ("target", "valid"):
        got = tuple(getattr(batch, name).shape)
        if got != expected:
            raise ValueError(
                f"{name} has shape {got}, but the images ask for {expected} [B, H, W]; "
                "resize the ground truth with the images (nearest, never interpolated classes)"
            )
    if not may_be_empty and batch.valid.is_cpu and not batch.valid.any():
        raise ValueError(
            f"none of the {batch.valid.numel()} pixels of these {expected[0]} images is valid; "
            "check how the source marks missing ground truth"
        )


def check_dense_pairs(batch: DensePairBatch, channels: int, may_be_empty: bool = False) -> None:
    """Refuse pairs whose images and ground truth do not fit together or cannot be learnt from.

    Args:
        batch: pairs and where the pixels of the first image are in the second.
        channels: 2 for flow, 1 for disparity.
        may_be_empty: whether it is fine that no pixel is valid, as in a part of a held-out set.

    Raises:
        ValueError: on different sizes, valid values that are not finite, or no valid pixel.
    """
    first = tuple(batch.image_1.shape)
    if tuple(batch.image_2.shape) != first:
        raise ValueError(
            f"image_1 has shape {first}, image_2 {tuple(batch.image_2.shape)}; both views of a "
            "pair must have one size: crop them alike"
        )
    for name, end in (("target", (channels,)), ("valid", ())):
        got, expected = tuple(getattr(batch, name).shape), (first[0], *first[-2:], *end)
        if got != expected:
            raise ValueError(
                f"{name} has shape {got}, but the images ask for {expected} [B, H, W"
                f"{', C' if end else ''}]; flow has two channels, disparity one"
            )
    if not batch.valid.is_cpu:
        return
    if not batch.target[batch.valid].isfinite().all():
        raise ValueError(
            "valid displacements must be finite; mark unknown ones (inf, nan) as not valid"
        )
    if not may_be_empty and not batch.valid.any():
        raise ValueError(
            f"none of the {batch.valid.numel()} pixels of these {first[0]} pairs is valid; "
            "check how the source marks missing ground truth"
        )
