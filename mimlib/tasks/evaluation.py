"""Measurements on held-out images, for the trainer to run while it trains or for anyone by hand.

Held-out images come un-augmented from `source.first` and are kept between measurements. A
measurement leaves the model's mode and parameters as they were.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mimlib.data.batches import DenseBatch
from mimlib.data.depth_files import DepthFilesConfig
from mimlib.data.indexed import IndexedSource
from mimlib.data.matching import MatchingFilesConfig
from mimlib.data.pairs import WorldPairsConfig
from mimlib.data.segmentation_files import SegmentationFilesConfig
from mimlib.data.sources import ImageFolderConfig, WorldImagesConfig
from mimlib.protocol import Encoder, Trainable
from mimlib.tasks.frozen import evaluating, extract, fit_linear, knn, patch_samples
from mimlib.tasks.heads import pooled
from mimlib.tasks.metrics import (
    as_floats,
    classification_metrics,
    segmentation_metrics,
    update_metrics,
)
from mimlib.tasks.task import Task, check_labels

SourceConfig = WorldImagesConfig | ImageFolderConfig


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Loss and metrics of what is being trained, on held-out images."""

    source: (
        SourceConfig
        | DepthFilesConfig
        | SegmentationFilesConfig
        | WorldPairsConfig
        | MatchingFilesConfig
    )
    num_images: int = 256  # as `source.first` chooses them; 0: the whole source, read every time
    batch_size: int = 64  # images measured at once
    seed: int = 0  # of what the views draw, for instance masks; the same draws every time
    name: str = "validation"

    def __post_init__(self) -> None:
        check_positive(self, "batch_size")
        if self.num_images < 0:
            raise ValueError(f"num_images must be 0 (all) or more, got {self.num_images}")

    def build(self) -> "Validation":
        """Make the measurement with its source or sources."""
        return Validation(self.source.build(), self)


class Validation:
    """Run a method or task on held-out images in evaluation mode."""

    def __init__(self, source: IndexedSource, config: ValidationConfig) -> None:
        self.name, self.source, self.config = config.name, source, config

    @cached_property
    def images(self) -> NamedTuple:
        """The held-out batch."""
        return self.source.first(self.config.num_images)

    def run(self, model: Trainable, device: torch.device) -> Mapping[str, float]:
        """Return `loss`, the mean over all that counts in it, and for a task its metrics.

        Raises:
            ValueError: if there is no ground truth at all.
        """
        generator = torch.Generator(device).manual_seed(self.config.seed)
        metrics = model.metrics().to(device) if isinstance(model, Task) else None
        losses, counts = [], []
        with evaluating(model):
            for batch in self._batches(device):
                output = model(model.sample_views(batch, generator))
                losses.append(output.loss)
                counts.append(torch.tensor(len(batch[0])))
                if output.mask is not None:
                    counts[-1] = output.mask.sum()
                if metrics is not None:
                    update_metrics(metrics, output)
        measured = as_floats(metrics) if metrics is not None else {}
        weights = torch.stack(counts).to(device, torch.float32)
        return {"loss": float(torch.stack(losses) @ weights / weights.sum()), **measured}

    def _batches(self, device: torch.device) -> Iterator[NamedTuple]:
        size = self.config.batch_size
        parts = split(self.images, size) if self.config.num_images else self.source.once(size)
        for batch in parts:
            yield type(batch)(*(field.to(device) for field in batch))


@dataclass(frozen=True, kw_only=True)
class FrozenProbeConfig:
    """Linear probe of the frozen encoder, fitted anew at every measurement in about a second."""

    train: SourceConfig  # labelled images (target "label") or pixels (target "classes")
    held_out: SourceConfig  # the same kind, other images
    num_classes: int
    num_train: int = 512  # images
    num_images: int = 256  # held-out images
    pool: Literal["mean", "class_token"] = "mean"  # what describes a labelled image
    name: str = "probe"

    def __post_init__(self) -> None:
        check_positive(self, "num_train", "num_images")

    def build(self) -> "FrozenProbe":
        """Make the measurement with its source or sources."""
        return FrozenProbe(self.train.build(), self.held_out.build(), self)


@dataclass(frozen=True, kw_only=True)
class KNNConfig:
    """k-NN classification by frozen features: nothing is trained at all."""

    train: SourceConfig  # images with labels
    held_out: SourceConfig  # other ones
    num_classes: int
    num_train: int = 1024  # images
    num_images: int = 256  # held-out images
    pool: Literal["mean", "class_token"] = "mean"  # what describes an image
    neighbours: int = 20  # votes; DINO (arXiv 2104.14294), section 4.1
    temperature: float = 0.07  # of the votes; Wu et al. 2018 (arXiv 1805.01978), section 3.4
    name: str = "knn"

    def __post_init__(self) -> None:
        check_positive(self, "num_train", "num_images", "neighbours", "temperature")

    def build(self) -> "KNN":
        """Make the measurement with its source or sources."""
        return KNN(self.train.build(), self.held_out.build(), self)


class FrozenEvaluation(ABC):
    """Encode labelled images, learn from some, classify the others."""

    def __init__(
        self, train: IndexedSource, held_out: IndexedSource, config: FrozenProbeConfig | KNNConfig
    ) -> None:
        self.name, self.config = config.name, config
        self.train, self.held_out = train, held_out

    @cached_property
    def images(self) -> tuple[NamedTuple, NamedTuple]:
        """The batch to learn from and the held-out batch."""
        return self.train.first(self.config.num_train), self.held_out.first(self.config.num_images)

    @abstractmethod
    def classify(self, features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Learn from features [K, D] with labels [K] and return classes of the queries [Q, D]."""

    def run(self, model: Trainable, device: torch.device) -> Mapping[str, float]:
        """Return `accuracy`, and `miou` where the classes are those of patches."""
        train, held_out = self.images
        features, labels = self._samples(model.encoder, train)
        queries, truth = self._samples(model.encoder, held_out)
        predicted = self.classify(features.to(device), labels.to(device), queries.to(device))
        is_dense = isinstance(held_out, DenseBatch)
        collect = segmentation_metrics if is_dense else classification_metrics
        metrics = collect(self.config.num_classes)
        metrics.update(predicted.cpu(), truth)
        return as_floats(metrics)

    def _samples(self, encoder: Encoder, batch: NamedTuple) -> tuple[Tensor, Tensor]:
        if isinstance(batch, DenseBatch):
            return patch_samples(encoder, batch, self.config.num_classes)
        check_labels(batch.labels, self.config.num_classes)
        return pooled(extract(encoder, batch.images), self.config.pool), batch.labels


class FrozenProbe(FrozenEvaluation):
    """Accuracy of a linear layer on frozen features, of images or of patches."""

    def classify(self, features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Fit the linear probe to its optimum and apply it."""
        head = fit_linear(features, labels, self.config.num_classes)
        return head(queries).argmax(dim=1)


class KNN(FrozenEvaluation):
    """Accuracy of the vote of the nearest frozen features."""

    def classify(self, features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        """Let the nearest features vote."""
        config = self.config
        return knn(
            *(features, labels, queries, config.num_classes),
            neighbours=config.neighbours,
            temperature=config.temperature,
        )


def split(batch: NamedTuple, batch_size: int) -> Iterator[NamedTuple]:
    """Cut a batch into batches of at most `batch_size` items."""
    return map(type(batch)._make, zip(*(field.split(batch_size) for field in batch)))


def check_positive(config: object, *names: str) -> None:
    """Refuse fields of a config that are not above 0.

    Raises:
        ValueError: naming the field.
    """
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")
