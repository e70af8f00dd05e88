"""Metrics of classes and depth, built over torchmetrics.

Every rank measures all held-out images by itself, so nothing is ever synchronised between ranks.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from mimlib.protocol import Output

CLOSE_RATIO = 1.25  # Eigen et al. 2014 (arXiv 1406.2283), section 4.2; to the n for delta_n
MIN_DEPTH = 1e-3  # metres; predictions are raised to it before ratios and logarithms


def classification_metrics(num_classes: int) -> MetricCollection:
    """Return `accuracy`, the share of images (not of classes) whose class is right."""
    accuracy = MulticlassAccuracy(num_classes, average="micro", sync_on_compute=False)
    return collect(accuracy=accuracy)


def segmentation_metrics(num_classes: int) -> MetricCollection:
    """Return `accuracy`, `mean_accuracy` and `miou` over patches or pixels: ClassScores."""
    return collect(classes=ClassScores(num_classes))


def depth_metrics() -> MetricCollection:
    """Return `rmse` (metres), `rel`, `log_rmse`, `delta_1`, `delta_2`, `delta_3`: DepthErrors."""
    return collect(depth=DepthErrors())


def collect(**metrics: Metric) -> MetricCollection:
    """Put metrics together, each with states of its own."""
    # Compute groups would merge metrics whose first batch happens to give equal states.
    return MetricCollection(metrics, compute_groups=False)


def update_metrics(metrics: MetricCollection, output: Output) -> None:
    """Count one batch: only where `output.mask` is True, everywhere if there is none."""
    prediction, target = output.prediction, output.target
    if output.mask is not None:
        prediction, target = prediction[output.mask], target[output.mask]
    if target.numel():
        metrics.update(prediction, target)


class Sums(Metric):
    """A metric of sums over a whole set: every pixel counts once, however they were batched."""

    full_state_update = False
    is_differentiable = False

    def __init__(self, **zeros: Tensor) -> None:
        super().__init__(sync_on_compute=False)
        for name, zero in zeros.items():
            self.add_state(name, zero.clone(), dist_reduce_fx="sum")


class DepthErrors(Sums):
    """Errors of metric depth (Eigen et al. 2014, arXiv 1406.2283, section 4.2).

    With y the prediction and y* the truth of a pixel:
    rmse = sqrt(mean (y - y*)^2), rel = mean |y - y*| / y*,
    log_rmse = sqrt(mean (log y - log y*)^2), delta_n = share with max(y / y*, y* / y) < 1.25^n.
    Means are over all valid pixels of the set.
    """

    def __init__(self) -> None:
        zero, zeros = torch.tensor(0.0), torch.zeros(3, dtype=torch.long)
        super().__init__(squared=zero, relative=zero, squared_log=zero, close=zeros, count=zeros[0])

    def update(self, prediction: Float[Tensor, "*px"], target: Float[Tensor, "*px"]) -> None:
        """Count valid pixels: predicted and true depth in metres, true depth above zero."""
        prediction = prediction.float().clamp(min=MIN_DEPTH)
        difference = prediction - target
        log_ratio = torch.log(prediction / target)
        self.squared += difference.square().sum()
        self.relative += (difference.abs() / target).sum()
        self.squared_log += log_ratio.square().sum()
        ratio = torch.maximum(prediction / target, target / prediction)
        self.close += torch.stack([(ratio < CLOSE_RATIO**n).sum() for n in (1, 2, 3)])
        self.count += target.numel()

    def compute(self) -> dict[str, Tensor]:
        """Return the numbers by name."""
        shares = self.close / self.count
        return {
            "rmse": (self.squared / self.count).sqrt(),
            "rel": self.relative / self.count,
            "log_rmse": (self.squared_log / self.count).sqrt(),
            **{f"delta_{n}": share for n, share in enumerate(shares, start=1)},
        }


class ClassScores(Sums):
    """How well pixels are classified (Long et al. 2015, arXiv 1411.4038, section 5).

    accuracy: share of the pixels whose class is right. mean_accuracy: of each class, the share of
    its pixels that are found, averaged over the classes of the ground truth. miou: of each class,
    pixels that are rightly given it over pixels that have it or are given it, averaged over the
    classes that occur in the ground truth or in the prediction. All over the whole set.

    (torchmetrics' mean accuracy counts a class that is predicted but never there as 0.)
    """

    def __init__(self, num_classes: int) -> None:
        zeros = torch.zeros(num_classes, dtype=torch.long)
        super().__init__(right=zeros, predicted=zeros, true=zeros)

    def update(self, prediction: Int[Tensor, "*px"], target: Int[Tensor, "*px"]) -> None:
        """Count pixels that have a class."""
        num_classes = len(self.true)
        for count, ids in (
            (self.right, target[prediction == target]),
            (self.predicted, prediction.flatten()),
            (self.true, target.flatten()),
        ):
            count += torch.bincount(ids, minlength=num_classes)

    def compute(self) -> dict[str, Tensor]:
        """Return the numbers by name."""
        either = self.true + self.predicted - self.right
        found = self.right / self.true  # nan where a class is not there
        return {
            "accuracy": self.right.sum() / self.true.sum(),
            "mean_accuracy": found.nanmean(),
            "miou": (self.right / either).nanmean(),
        }


def as_floats(metrics: MetricCollection) -> dict[str, float]:
    """Return what the metrics have counted as plain numbers; ValueError if that is nothing."""
    if not all(metric.update_called for metric in metrics.values()):
        raise ValueError("nothing was counted: none of the held-out images has ground truth")
    return {name: float(value) for name, value in metrics.compute().items()}
