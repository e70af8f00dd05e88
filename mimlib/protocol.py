"""The types every room knows: what is trained, what an encoder returns, how a mask is written.

Letters: B images in a batch, N patches of one image, V visible and M masked patches (V + M = N),
K any list of patches, D encoder width, H and W height and width in pixels, h and w the patch grid.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class PatchMask(NamedTuple):
    """Which patches of each image are shown and which are hidden.

    Both index tensors are ascending and count patches only: a class token never shifts an index.
    """

    visible: Tensor  # [B, V] int64
    masked: Tensor  # [B, M] int64, V + M = N


class Features(NamedTuple):
    """What an encoder says about a batch of images."""

    tokens: Tensor  # [B, K, D] patches only, after the final norm; K = V under a mask, else N
    class_token: Tensor | None  # [B, D]
    grid: tuple[int, int]  # (h, w) of the full patch grid
    levels: tuple[Tensor, ...] = ()  # [B, D_s, h_s, w_s] each, for dense tasks


class Output(NamedTuple):
    """What one forward pass tells the trainer and the figures."""

    loss: Tensor  # [] differentiable, mean over what counts in this micro-batch of this rank
    terms: Mapping[str, Tensor]  # [] each, detached, named as in the paper
    prediction: Tensor | None = None  # detached, in the space of `target`
    target: Tensor | None = None
    mask: Tensor | None = None  # [B, N] bool, True = counted in the loss
    state: Mapping[str, Tensor] | None = None  # what after_step needs, detached
    weight: Tensor | None = None  # [] how much `loss` is the mean of, in pixels for instance; None:
    # as much for every batch of this size. Means over micro-batches and ranks are weighted by it.


class Encoder(nn.Module, ABC):
    """Images in, features out.

    What an encoder makes of an image on the way are its levels: the blocks of a ViT, the stages of
    ConvViT and Swin. They are counted from 0 in the order in which they are made, -1 is the last,
    and each is a map [B, D_s, h_s, w_s] as it is before the final norm.
    """

    stride: int  # pixels per grid cell
    width: int  # D
    num_layers: int  # blocks, L; with layer decay their rates are scaled one by one
    num_levels: int  # maps that can be asked for

    @abstractmethod
    def forward(
        self, images: Tensor, mask: PatchMask | None = None, levels: tuple[int, ...] = ()
    ) -> Features:
        """Encode images; under a mask only the visible patches are computed.

        Args:
            images: [B, 3, H, W], ImageNet-normalized, sides multiples of the stride.
            mask: which patches to compute; None: all.
            levels: those whose maps are returned, without a mask.
        """

    def check_levels(self, levels: tuple[int, ...], mask: PatchMask | None = None) -> None:
        """Raise ValueError for levels that are not there, or any under a mask: no map is whole."""
        if levels and mask is not None:
            raise ValueError("levels are maps of the whole grid; encode without a mask")
        if not all(-self.num_levels <= level < self.num_levels for level in levels):
            raise ValueError(
                f"levels {levels} are not all there; expected 0 to {self.num_levels - 1}, or -1 "
                "for the last"
            )

    def encode_sizes(
        self, images: Sequence[Tensor], levels: tuple[int, ...] = ()
    ) -> tuple[Features, ...]:
        """Encode images of several sizes, [B, 3, H, W] each; here, one pass for each size."""
        # Not by calling `self`: what training wraps as an entrance must not be entered from within.
        return tuple(self.forward(each, levels=levels) for each in images)

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Depth of the parameter `name`: 0 for embeddings, i + 1 for block i, L + 1 after them."""


class Trainable(nn.Module, ABC):
    """A pre-training method or a downstream task: one trainer serves both.

    `forward` is pure: the same parameters and views give the same output. All randomness of a
    batch is in `sample_views`, all state that is not a gradient step is in `after_step`.
    """

    encoder: Encoder

    @property
    def trained_encoder(self) -> Encoder:
        """The encoder that gradients train; not the one that is kept, where that only follows."""
        return self.encoder

    @abstractmethod
    def sample_views(self, batch: NamedTuple, generator: torch.Generator) -> NamedTuple:
        """Draw everything random about this batch, on the device of the batch."""

    @abstractmethod
    def forward(self, views: NamedTuple) -> Output:
        """Return the loss and what the figures show."""

    def after_step(self, state: Mapping[str, Tensor] | None, progress: float) -> None:
        """Update what no gradient updates (teacher, centres); `progress` runs from 0 to 1."""


class Source(Protocol):
    """Where batches come from. Deterministic: the batch of a step depends on nothing else."""

    def batches(
        self, start: int, batch_size: int, seed: int, rank: int = 0, num_ranks: int = 1
    ) -> Iterator[NamedTuple]:
        """Yield without end the batches number start, start + 1, ... of this rank, on the CPU.

        Ranks split one global order, so that two ranks of 8 see what one rank of 16 sees.
        """

    def identity(self) -> str:
        """Return what tells this set of images from others by its content, in a short line.

        How many there are, and a hash of their names and some of their sizes (files) or pixels (in
        memory); not where they lie. Equal settings with another identity give other batches.
        """


class Evaluation(Protocol):
    """A measurement of what is being trained, run by the trainer or by hand."""

    name: str

    def run(self, model: Trainable, device: torch.device) -> Mapping[str, float]:
        """Return named numbers; leaves the model's mode and parameters as they were."""
