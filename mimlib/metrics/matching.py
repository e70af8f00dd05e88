"""Metrics of flow and stereo, over all valid pixels of a set: every pixel counts once."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import MetricCollection

from mimlib.metrics.dense import Sums, collect

OUTLIER_PIXELS, OUTLIER_SHARE = 3.0, 0.05  # KITTI 2015: off by more than both
FLOW_BAD = (1.0, 3.0, 5.0)  # pixels
DISPARITY_BAD = (0.5, 1.0, 2.0, 3.0)  # pixels; Middlebury and ETH3D


def flow_metrics() -> MetricCollection:
    """Return `epe` (pixels), `bad_1`, `bad_3`, `bad_5` and `f1_all`: see DisplacementErrors."""
    return collect(flow=DisplacementErrors(FLOW_BAD, "f1_all"))


def stereo_metrics() -> MetricCollection:
    """Return `epe`, `rmse` (pixels), `bad_0.5`, `bad_1`, `bad_2`, `bad_3` and `d1`."""
    return collect(stereo=DisplacementErrors(DISPARITY_BAD, "d1", with_rmse=True))


class DisplacementErrors(Sums):
    """End-point error and shares of wrong pixels.

    With e the Euclidean length of prediction minus truth, in pixels:
    epe = mean e; rmse = sqrt(mean e^2); bad_n = share with e > n;
    f1_all (flow) and d1 (stereo), KITTI 2015: share with e > 3 and e > 5 % of the true length.
    Shares are in [0, 1].
    """

    def __init__(
        self, thresholds: tuple[float, ...], outlier: str, with_rmse: bool = False
    ) -> None:
        zero, zeros = torch.tensor(0.0), torch.zeros(len(thresholds), dtype=torch.long)
        super().__init__(distance=zero, squared=zero, bad=zeros, outliers=zeros[0], count=zeros[0])
        self.thresholds, self.outlier, self.with_rmse = thresholds, outlier, with_rmse

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
