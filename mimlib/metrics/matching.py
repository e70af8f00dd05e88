"""Metrics of flow and stereo, over all valid pixels of a set: every pixel counts once."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection

OUTLIER_PIXELS, OUTLIER_SHARE = 3.0, 0.05  # KITTI 2015: off by more than both
FLOW_BAD = (1.0, 3.0, 5.0)  # pixels
DISPARITY_BAD = (0.5, 1.0, 2.0, 3.0)  # pixels; Middlebury and ETH3D


def flow_metrics() -> MetricCollection:
    """Return `epe` (pixels), `bad_1`, `bad_3`, `bad_5` and `f1_all`: see DisplacementErrors."""
    errors = DisplacementErrors(FLOW_BAD, "f1_all", sync_on_compute=False)
    return MetricCollection({"flow": errors}, compute_groups=False)


def stereo_metrics() -> MetricCollection:
    """Return `epe`, `rmse` (pixels), `bad_0.5`, `bad_1`, `bad_2`, `bad_3` and `d1`."""
    errors = DisplacementErrors(DISPARITY_BAD, "d1", with_rmse=True, sync_on_compute=False)
    return MetricCollection({"stereo": errors}, compute_groups=False)


class DisplacementErrors(Metric):
    """End-point error and shares of wrong pixels.

    With e the Euclidean length of prediction minus truth, in pixels:
    epe = mean e; rmse = sqrt(mean e^2); bad_n = share with e > n;
    f1_all (flow) and d1 (stereo), KITTI 2015: share with e > 3 and e > 5 % of the true length.
    Shares are in [0, 1].
    """

    full_state_update = False
    is_differentiable = False
    distance: Tensor
    squared: Tensor
    bad: Tensor
    outliers: Tensor
    count: Tensor

    def __init__(
        self, thresholds: tuple[float, ...], outlier: str, with_rmse: bool = False, **options
    ) -> None:
        super().__init__(**options)
        self.thresholds, self.outlier, self.with_rmse = thresholds, outlier, with_rmse
        for name in ("distance", "squared"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("bad", torch.zeros(len(thresholds), dtype=torch.long), dist_reduce_fx="sum")
        for name in ("outliers", "count"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Float[Tensor, "px C"], target: Float[Tensor, "px C"]) -> None:
        """Count valid pixels: predicted and true displacements, C = 2 for flow, 1 for stereo."""
        error = torch.linalg.vector_norm(prediction.float() - target, dim=-1)  # [px]
        length = torch.linalg.vector_norm(target, dim=-1)
        self.distance += error.sum()
        self.squared += error.square().sum()
        self.bad += torch.stack([(error > limit).sum() for limit in self.thresholds])
        self.outliers += ((error > OUTLIER_PIXELS) & (error > OUTLIER_SHARE * length)).sum()
        self.count += len(error)

    def compute(self) -> dict[str, Tensor]:
        """Return the numbers by name."""
        named = {"epe": self.distance / self.count}
        if self.with_rmse:
            named["rmse"] = (self.squared / self.count).sqrt()
        shares = self.bad / self.count
        named |= {f"bad_{limit:g}": share for limit, share in zip(self.thresholds, shares)}
        return {**named, self.outlier: self.outliers / self.count}
