"""DINO's objective: the student learns the teacher's soft classes of each crop, G of them.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, arXiv
2104.14294, section 3.1:

    target = softmax((teacher - center) / tau_t)
    loss   = H(target, softmax(student / tau_s)),     H(p, q) = - sum p log q
    center <- m center + (1 - m) mean(teacher)        equation 4

Centering stops one class from winning for every image, sharpening (tau_t < tau_s) stops all classes
from tying for every image: without either of them the networks collapse.

Patches have a third way out: all patches of a crop say the same, another thing for each crop. The
center of a run allows that; `center="crop"` takes away what a crop's patches say in common.

The same function as the official code, with nothing computed twice: H(p, softmax(s)) is
logsumexp(s) - <p, s>, whose first part does not depend on the target; and since the last layer is
linear, the mean of the teacher's logits is its logits of the mean, and the student's temperature
divides what goes in, fewer numbers than come out.

Letters: B images, V crops, Q crops of the teacher, N patches, D width, G prototypes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.checks import check_choice, check_positive, check_range
from mimlib.layers.projection import PrototypeHead
from mimlib.layers.recompute import recompute

# 87,000 patches of a batch of 128, each with 4096 numbers, are 1.4 GB; so many are 134 MB.
ROWS_AT_ONCE = 8192


Heads = tuple[PrototypeHead, PrototypeHead]  # of the student and of the teacher


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """How the student is compared to the teacher. Defaults: DINO's and SelfPatch's, for images."""

    prototypes: int = 65_536  # G, soft classes; 4096 for patches
    hidden: int = 2048  # width of the head
    bottleneck: int = 256  # E, width of the space of the prototypes
    layers: int = 3  # linear maps of the head before the prototypes, 2 or more
    batch_norm: bool = False  # in the head; official option, off in every published run
    student_temperature: float = 0.1  # tau_s
    teacher_temperature: float = 0.04  # tau_t; lower is sharper, tau_s is no sharpening at all
    center_momentum: float = 0.9  # m; 1 is no centering by the run
    center: Literal["run", "crop"] = "run"  # mean over the steps; or over a crop's patches, of each

    def __post_init__(self):
        check_positive(self, "prototypes", "hidden", "bottleneck")
        check_positive(self, "student_temperature", "teacher_temperature")
        check_range(self, "layers", least=2, hint="the head has a hidden layer")
        check_range(self, "center_momentum", least=0, most=1)
        check_choice(self, "center", ("run", "crop"))

    def build(self) -> "Distillation":
        """Make the objective; its center is 0."""
        return Distillation(self)

    def build_head(self, width: int, for_student: bool) -> PrototypeHead:
        """Make a head for representations of this width; both networks have the same."""
        shape = width, self.hidden, self.bottleneck, self.prototypes
        return PrototypeHead(*shape, self.batch_norm, self.layers)


class Distillation(nn.Module):
    """Compares soft classes, and keeps the teacher's center."""

    def __init__(self, config: DistillationConfig):
        super().__init__()
        self.config = config
        self.register_buffer("center", torch.zeros(config.prototypes))

    def between_crops(
        self,
        heads: Heads,
        student: Float[Tensor, "V B D"],
        teacher: Float[Tensor, "W B D"],
        num_targets: int,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " G"]]:
        """Let each of the teacher's first `num_targets` crops teach all other crops of the student.

        Returns the loss, and the mean logits over all of the teacher's crops: `update_center` wants
        them.
        """
        embedded = heads[1].embed(teacher)  # [W, B, E]
        mean = embedded.flatten(0, 1).mean(dim=0, keepdim=True)  # [1, E]
        logits = heads[1].classify(torch.cat([embedded[:num_targets].flatten(0, 1), mean]))
        targets = self.sharpen(logits[:-1]).unflatten(0, (num_targets, -1))  # [Q, B, G]
        scaled = heads[0].embed(student) / self.config.student_temperature
        losses = self.cross_entropies(heads[0].classify(scaled), targets).mean(dim=-1)  # [Q, V]
        return mean_over_other_crops(losses), logits[-1].float()

    def within_crops(
        self,
        heads: Heads,
        student: Sequence[Float[Tensor, "_ B _ D"]],
        teacher: Sequence[Float[Tensor, "_ B _ D"]],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " G"]]:
        """Let each patch of the teacher teach the same patch of the same crop, for each size.

        Returns the loss, in which every crop weighs the same, and the mean logits over the
        teacher's patches, in which every patch does: `update_center` wants them.
        """
        ours, theirs = (
            torch.cat([rearrange(part, "v b n d -> (v b n) d") for part in parts])
            for parts in (student, teacher)
        )
        embedded = heads[1].embed(theirs)
        if self.config.center == "crop":
            embedded = minus_crop_means(embedded, [part.shape for part in teacher])
        losses = self.of_rows(heads, heads[0].embed(ours), embedded)
        mean = heads[1].classify(embedded.mean(dim=0, keepdim=True))[0].float()  # [G]
        of_sizes = losses.split([part.shape[:3].numel() for part in student])
        num_crops = sum(len(part) for part in student)
        shares = (len(part) / num_crops for part in student)
        return sum(share * part.mean() for share, part in zip(shares, of_sizes)), mean

    def of_rows(
        self,
        heads: Heads,
        student: Float[Tensor, "rows E"],
        teacher: Float[Tensor, "rows E"],
    ) -> Float[Tensor, " rows"]:
        """Return the loss of each row, embedded by both, some rows at a time.

        Of many rows, the logits are not kept for the backward pass but computed again.
        """

        def compare(ours: Tensor, theirs: Tensor) -> Tensor:
            logits = heads[0].classify(ours / self.config.student_temperature)
            return self.cross_entropies(logits, self.sharpen(heads[1].classify(theirs))[None])[0]

        pairs = [*zip(student.split(ROWS_AT_ONCE), teacher.split(ROWS_AT_ONCE))]
        if len(pairs) == 1:
            return compare(*pairs[0])
        return torch.cat([recompute(compare, *pair) for pair in pairs])

    def sharpen(self, logits: Float[Tensor, "*B G"]) -> Float[Tensor, "*B G"]:
        """Turn the teacher's logits into probabilities: centered, then sharpened."""
        return ((logits.float() - self.center) / self.config.teacher_temperature).softmax(dim=-1)

    def cross_entropies(
        self, logits: Float[Tensor, "... G"], targets: Float[Tensor, "Q ... G"]
    ) -> Float[Tensor, "Q ..."]:
        """Return H(target, softmax of the student's logits) for Q sets of targets."""
        logits = logits.float()
        products = torch.stack([(target * logits).sum(dim=-1) for target in targets])
        return logits.logsumexp(dim=-1) - products

    def update_center(self, mean: Float[Tensor, " G"]) -> None:
        """Move the center towards the mean logits of a step, which is that of all ranks."""
        self.center.lerp_(mean, 1 - self.config.center_momentum)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *others) -> None:
        """Load the center also by the name it had before 2026-12, as in the shipped networks."""
        if prefix + "centre" in state:
            state[prefix + "center"] = state.pop(prefix + "centre")
        super()._load_from_state_dict(state, prefix, *others)


def minus_crop_means(
    rows: Float[Tensor, "rows E"], shapes: Sequence[tuple[int, ...]]
) -> Float[Tensor, "rows E"]:
    """Take from each patch the mean over the patches of its crop.

    Before the last layer, which is linear: its mean logits are taken away, too. What is left has
    mean 0, so that the center of the run stays 0.

    Args:
        rows: patches of all crops, size after size.
        shapes: [V, B, N, ...] of the crops of each size.
    """
    sizes = rows.split([math.prod(shape[:3]) for shape in shapes])
    crops = (size.unflatten(0, shape[:3]) for size, shape in zip(sizes, shapes))  # [V, B, N, E]
    return torch.cat([(crop - crop.mean(dim=2, keepdim=True)).flatten(0, 2) for crop in crops])


def mean_over_other_crops(losses: Float[Tensor, "Q V"]) -> Float[Tensor, ""]:
    """Average over the pairs of a teacher's crop q and another crop v of the student.

    The teacher's crops are the student's first ones: with 2 and 10 there are 18 pairs.
    """
    different = 1 - torch.eye(*losses.shape, device=losses.device)  # [Q, V]
    return (losses * different).sum() / different.sum()
