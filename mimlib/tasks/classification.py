"""Image classification by fine-tuning the whole encoder.

MAE (arXiv 2111.06377), appendix A.1, "End-to-end fine-tuning", table 9.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MetricCollection

from mimlib.checks import check_range
from mimlib.data.batches import LabelBatch
from mimlib.encoders import EncoderConfig
from mimlib.layers.patches import normalize
from mimlib.metrics.dense import classification_metrics
from mimlib.protocol import Output
from mimlib.tasks.task import Task, check_labels

HEAD_STD = 2e-5  # as official: of the weights of the classifier
BETA_CANDIDATES = 64  # each is accepted with probability 1/2 or more: none is, once in 2^64 draws


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Fine-tuning for classification; the recipe of table 9 is in the comments."""

    encoder: EncoderConfig  # with learned_positions and drop_path, 0.1 (B), 0.2 (L), 0.3 (H)
    num_classes: int
    pool: Literal["mean", "class_token"] = "mean"  # mean of patch tokens, or the class token
    label_smoothing: float = 0.1  # share of the target spread over all classes
    mixup: float = 0.0  # alpha of the Beta distribution, 0 to 1, 0 = off; paper 0.8
    cutmix: float = 0.0  # likewise; paper 1.0; with both on, each batch takes one or the other

    def __post_init__(self) -> None:
        check_range(self, "num_classes", least=2)
        if self.pool == "class_token" and not self.encoder.class_token:
            raise ValueError("pool='class_token' needs an encoder with one; use pool='mean'")
        check_range(self, "label_smoothing", "mixup", "cutmix", least=0, most=1)

    def build(self) -> "Classifier":
        """Make the task, freshly initialised."""
        return Classifier(self)


class ClassifierViews(NamedTuple):
    """Normalised, perhaps mixed images, and how much of each class is in them."""

    images: Tensor  # [B, 3, H, W] float32, ImageNet-normalised
    shares: Tensor  # [B, G] float32, each row sums to one


class Classifier(Task):
    """Encoder and linear classifier, trained end to end.

    With pool="mean" the patch tokens of the last block are averaged (no class token), and a new
    LayerNorm takes the place of the encoder's final one, which is passed by and frozen.
    `forward` in training mode draws the paths that `drop_path` drops.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        width, eps = self.encoder.width, config.encoder.norm_eps
        self.fc_norm = nn.LayerNorm(width, eps=eps) if config.pool == "mean" else nn.Identity()
        self.head = nn.Linear(width, config.num_classes)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)
        if config.pool == "mean":
            self.encoder.norm.requires_grad_(False)

    def sample_views(self, batch: LabelBatch, generator: torch.Generator) -> ClassifierViews:
        """Normalise, and in training mode mix each image with another one of the batch."""
        check_labels(batch.labels, self.config.num_classes)
        images = normalize(batch.images)
        shares = functional.one_hot(batch.labels, self.config.num_classes).float()
        alphas = (self.config.mixup, self.config.cutmix)
        if self.training and any(alphas):
            images, shares = mixup_cutmix(images, shares, *alphas, generator)
        return ClassifierViews(images, shares)

    def features(self, images: Tensor) -> Float[Tensor, "B D"]:
        """Describe normalised images [B, 3, H, W] by what the classifier reads."""
        if self.config.pool == "class_token":
            return self.encoder(images).class_token
        feature_map = self.encoder(images, levels=(-1,)).levels[0]  # before the final norm
        return self.fc_norm(feature_map.mean(dim=(2, 3)))

    def forward(self, views: ClassifierViews) -> Output:
        """Return the cross-entropy, the predicted classes and the true (larger) ones."""
        logits = self.head(self.features(views.images)).float()  # [B, G]
        smoothing = self.config.label_smoothing if self.training else 0.0
        loss = functional.cross_entropy(logits, views.shares, label_smoothing=smoothing)
        return Output(
            loss=loss,
            terms={"cross_entropy": loss.detach()},
            prediction=logits.detach().argmax(dim=1),
            target=views.shares.argmax(dim=1),
        )

    def metrics(self) -> MetricCollection:
        """Return accuracy."""
        return classification_metrics(self.config.num_classes)


def mixup_cutmix(
    images: Float[Tensor, "B 3 H W"],
    shares: Float[Tensor, "B G"],
    mixup: float,
    cutmix: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B G"]]:
    """Blend image i with image B - 1 - i, everywhere (mixup) or inside one box (cutmix).

    Mixup: arXiv 1710.09412; CutMix: arXiv 1905.04899. The share of mixup or the area of CutMix that
    is kept is drawn from Beta(alpha, alpha); alpha 0 = off. As official: one draw for the batch,
    its partner is the batch in reverse order, and with both on each is taken half of the time.
    """
    box = random_box(images.shape[-2:], sample_beta(cutmix or 1.0, generator), generator)
    blend = sample_beta(mixup or 1.0, generator)
    chance = bool(cutmix) / (bool(mixup) + bool(cutmix))
    use_cutmix = torch.rand((), generator=generator, device=images.device) < chance
    kept = torch.where(use_cutmix, (~box).float(), blend)  # [H, W]
    share = kept.mean()
    images = kept * images + (1 - kept) * images.flip(0)
    return images, share * shares + (1 - share) * shares.flip(0)


def random_box(
    size: tuple[int, int], kept: Float[Tensor, ""], generator: torch.Generator
) -> Bool[Tensor, "H W"]:
    """Draw a box of an image's shape with area 1 - `kept`, centred anywhere, cut at the border."""
    center = torch.rand(2, generator=generator, device=kept.device)
    inside = []
    for side, middle in zip(size, center):
        half = torch.floor(side * (1 - kept).sqrt()) / 2
        at = torch.arange(side, device=kept.device) + 0.5
        inside.append((at - torch.floor(middle * side)).abs() < half)
    rows, columns = inside
    return rearrange(rows, "h -> h 1") & columns


def sample_beta(alpha: float, generator: torch.Generator) -> Float[Tensor, ""]:
    """Draw from Beta(alpha, alpha), 0 < alpha <= 1, on the generator's device.

    Joehnk's method: of u^(1/alpha), v^(1/alpha) with uniform u, v, take the first pair whose sum
    is at most one, and in it the share of the first. (torch's own Beta knows no generator.)
    """
    uniform = torch.rand(2, BETA_CANDIDATES, generator=generator, device=generator.device)
    x, y = uniform ** (1 / alpha)
    first = (x + y <= 1).int().argmax()
    return (x / (x + y))[first]
