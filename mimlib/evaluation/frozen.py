"""Frozen features, extracted once: what probes and k-NN need, in seconds.

The linear probe of MAE (arXiv 2111.06377, appendix A.1, "Linear probing"), solved to its optimum
instead of trained; per patch, the same for semantics.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from mimlib.checks import check_positive
from mimlib.data.batches import DenseBatch
from mimlib.data.source import IndexedSource
from mimlib.evaluation.measurement import answer_blind, evaluating
from mimlib.evaluation.validation import SourceConfig
from mimlib.layers.patches import normalize
from mimlib.metrics.dense import as_floats, classification_metrics, segmentation_metrics
from mimlib.protocol import Encoder, Features, Trainable
from mimlib.tasks.heads.linear import pooled
from mimlib.tasks.task import check_labels, check_truth

FIT_STEPS = 100  # L-BFGS iterations; measured on MAE features: the accuracy is settled by then
PROBE_DECAY = 1e-4  # L2 weight of the quick probe; measured: flat from 1e-5 to 1e-3

Keep = Callable[[Features, slice], Tensor]  # features of some images, which -> rows [K, D]


def extract(
    encoder: Encoder, images: UInt8[Tensor, "B 3 H W"], keep: Keep, batch_size: int = 64
) -> Float[Tensor, "K D"]:
    """Encode images in evaluation mode, some at a time, and keep of each part only what is needed.

    `keep` takes the features of a part, and which images these are, to rows of numbers; all of
    them come back, float32 on the CPU.
    """
    device = next(encoder.parameters()).device
    kept = []
    with evaluating(encoder):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            features = encoder(normalize(images[rows].to(device)))
            kept.append(keep(features, rows).float().cpu())
    return torch.cat(kept)


def patch_samples(
    encoder: Encoder, batch: DenseBatch, num_classes: int
) -> tuple[Float[Tensor, "K D"], Int[Tensor, " K"]]:
    """Encode images and return every patch that has a class: its feature and that class.

    Raises ValueError on sizes that do not fit, no valid pixel, or a class outside the range.
    """
    check_truth(batch)
    labels, counted = majority_classes(batch.target, batch.valid, encoder.stride, num_classes)
    tokens = extract(encoder, batch.images, lambda found, rows: found.tokens[counted[rows]])
    return tokens, labels[counted]


def majority_classes(
    classes: Int[Tensor, "B H W"],
    valid: Bool[Tensor, "B H W"],
    patch_size: int,
    num_classes: int,
) -> tuple[Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Give each patch of P x P pixels the class that most of its valid pixels have.

    Returns the class of each patch, the lowest id on a tie, and whether it has a valid pixel at
    all. Raises ValueError if a valid id is outside the range.
    """
    ids = classes.masked_fill(~valid, 0)
    check_labels(ids, num_classes)
    layout = "b (h p) (w q) -> b (h w) (p q)"
    ids = rearrange(ids, layout, p=patch_size, q=patch_size)  # [B, N, P * P]
    known = rearrange(valid, layout, p=patch_size, q=patch_size)  # [B, N, P * P]
    counts = known.new_zeros(*ids.shape[:2], num_classes, dtype=torch.int64)
    counts.scatter_add_(2, ids.long(), known.long())  # [B, N, G]
    return counts.argmax(dim=2), known.any(dim=2)


def fit_linear(
    features: Float[Tensor, "K D"],
    labels: Int[Tensor, " K"],
    num_classes: int,
    decay: float = PROBE_DECAY,
) -> nn.Sequential:
    """Train the linear probe on cached features to its optimum.

    A BatchNorm without affine parameters, because pixels reconstructed from them do not fix the
    scale of features, and a linear layer. The statistics are those of the whole set, so what is
    left is logistic regression: min_W,b mean cross-entropy + decay / 2 |W|^2. It is convex and
    solved by L-BFGS from zero on all samples at once: no rate to tune, no seed. Returns the two
    layers in evaluation mode, on the device of the features.
    Raises ValueError if features and labels differ in number, none is given, or a label is outside.
    """
    if len(features) != len(labels) or len(labels) == 0:
        raise ValueError(f"got {len(features)} features and {len(labels)} labels; expected pairs")
    check_labels(labels, num_classes)
    width, device = features.shape[1], features.device
    norm = nn.BatchNorm1d(width, affine=False, eps=1e-6, device=device).eval()
    norm.running_mean.copy_(features.mean(dim=0))
    norm.running_var.copy_(features.var(dim=0, unbiased=False))
    # A measurement draws nothing from a run's generator.
    linear = nn.utils.skip_init(nn.Linear, width, num_classes, device=device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    inputs = norm(features)
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=FIT_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = decay / 2 * linear.weight.square().sum()
        loss = functional.cross_entropy(linear(inputs), labels) + penalty
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return nn.Sequential(norm, linear).eval().requires_grad_(False)


def knn(
    features: Float[Tensor, "K D"],
    labels: Int[Tensor, " K"],
    queries: Float[Tensor, "Q D"],
    num_classes: int,
    neighbors: int = 20,
    temperature: float = 0.07,
) -> Int[Tensor, " Q"]:
    """Classify queries by a weighted vote of their nearest labelled features.

    Wu et al. 2018 (arXiv 1805.01978), section 3.4, as used for DINO: a neighbor of cosine
    similarity s votes for its class with weight exp(s / temperature).

    The papers' usual numbers of neighbors are 10, 20, 100, 200. Returns a class id per query.
    Raises ValueError if `neighbors` is outside [1, K] or a label is outside.
    """
    if not 1 <= neighbors <= len(labels):
        raise ValueError(
            f"neighbors must be in [1, {len(labels)}], the number of labelled features; "
            f"got {neighbors}"
        )
    check_labels(labels, num_classes)
    references = functional.normalize(features, dim=1)
    predicted = []
    for part in functional.normalize(queries, dim=1).split(1024):
        similarity, index = (part @ references.T).topk(neighbors, dim=1)  # [Q, neighbors]
        votes = part.new_zeros(len(part), num_classes)
        # One less in the exponent scales all votes alike and keeps them finite.
        votes.scatter_add_(1, labels[index], ((similarity - 1) / temperature).exp())
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)


@dataclass(frozen=True, kw_only=True)
class FrozenConfig(ABC):
    """What measurements of frozen features have in common."""

    train: SourceConfig  # images with labels
    held_out: SourceConfig  # the same kind, other images
    num_classes: int
    num_train: int = 512  # images
    num_images: int = 256  # held-out images
    pool: Literal["mean", "class_token"] = "mean"  # what describes a labelled image

    def __post_init__(self) -> None:
        check_positive(self, "num_train", "num_images")

    def build(self) -> "FrozenEvaluation":
        """Make the measurement with its sources."""
        return FrozenEvaluation(self.train.build(), self.held_out.build(), self)

    @abstractmethod
    def classify(self, features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Learn from features [K, D] with labels [K] and return classes of the queries [Q, D]."""


@dataclass(frozen=True, kw_only=True)
class FrozenProbeConfig(FrozenConfig):
    """Linear probe of the frozen encoder, fitted anew at every measurement in about a second.

    Of images with a label (target "label") or with a class per pixel (target "classes").
    """

    name: str = "probe"

    def classify(self, features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Fit the linear probe to its optimum and apply it."""
        return fit_linear(features, labels, self.num_classes)(queries).argmax(dim=1)


@dataclass(frozen=True, kw_only=True)
class KNNConfig(FrozenConfig):
    """k-NN classification by frozen features: nothing is trained at all."""

    num_train: int = 1024  # images
    neighbors: int = 20  # votes; DINO (arXiv 2104.14294), section 4.1
    temperature: float = 0.07  # of the votes; Wu et al. 2018 (arXiv 1805.01978), section 3.4
    name: str = "knn"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "neighbors", "temperature")

    def classify(self, features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Let the nearest features vote."""
        votes = (self.num_classes, self.neighbors, self.temperature)
        return knn(features, labels, queries, *votes)


class FrozenEvaluation:
    """Encode labelled images, learn from some, classify the others.

    Images stay in memory, as bytes: the encoder changes, so that each measurement needs them anew.
    """

    def __init__(self, train: IndexedSource, held_out: IndexedSource, config: FrozenConfig) -> None:
        self.name, self.config = config.name, config
        self.train, self.held_out = train, held_out

    @cached_property
    def images(self) -> tuple[NamedTuple, NamedTuple]:
        """The batch to learn from and the held-out batch."""
        return self.train.first(self.config.num_train), self.held_out.first(self.config.num_images)

    def run(self, model: Trainable, device: torch.device) -> Mapping[str, float]:
        """Return `accuracy`, and `miou` where the classes are those of patches."""
        train, held_out = self.images
        features, labels = self._samples(model.encoder, train)
        queries, truth = self._samples(model.encoder, held_out)
        samples = (each.to(device) for each in (features, labels, queries))
        return self._score(self.config.classify(*samples).cpu(), truth)

    def run_blind(self, stride: int) -> Mapping[str, float]:
        """Score the commonest class, of images or at each patch with a side of `stride` pixels."""
        truths = [
            majority_classes(*batch[1:], stride, self.config.num_classes)
            if isinstance(batch, DenseBatch)
            else (batch.labels, batch.labels >= 0)
            for batch in self.images
        ]
        return self._score(*answer_blind(*truths))

    def _score(self, predicted: Tensor, truth: Tensor) -> Mapping[str, float]:
        is_dense = isinstance(self.images[1], DenseBatch)
        collect = segmentation_metrics if is_dense else classification_metrics
        metrics = collect(self.config.num_classes)
        metrics.update(predicted, truth)
        return as_floats(metrics)

    def _samples(self, encoder: Encoder, batch: NamedTuple) -> tuple[Tensor, Tensor]:
        if isinstance(batch, DenseBatch):
            return patch_samples(encoder, batch, self.config.num_classes)
        check_labels(batch.labels, self.config.num_classes)
        pool = self.config.pool
        return extract(encoder, batch.images, lambda f, _: pooled(f, pool)), batch.labels
