"""DINO's objective: the student says of each crop what the teacher says, in G soft classes.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, arXiv
2104.14294, section 3.1:

    target = softmax((teacher - centre) / tau_t)
    loss   = H(target, softmax(student / tau_s)),     H(p, q) = - sum p log q
    centre <- m centre + (1 - m) mean(teacher)        equation 4

Centring stops one class from winning for every image, sharpening (tau_t < tau_s) stops all classes
from tying for every image: without either of them the networks collapse.

Patches have a third way out: all patches of a crop say the same, another thing for each crop. The
centre of a run allows that; `centre="crop"` takes away what a crop's patches say in common.

The same function as the official code, with nothing computed twice: H(p, softmax(s)) is
logsumexp(s) - <p, s>, whose first part does not depend on the target; and since the last layer is
linear, the mean of what the teacher says is what it says of the mean.

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

from mimlib.layers.blocks import forget
from mimlib.layers.projection import PrototypeHead

# 87,000 patches of a batch of 128, each with 4096 numbers, are 1.4 GB; so many are 134 MB.
ROWS_AT_ONCE = 8192


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
    centre_momentum: float = 0.9  # m; 1 is no centring by the run
    centre: Literal["run", "crop"] = "run"  # mean over the steps; or over a crop's patches, of each

    def __post_init__(self):
        if min(self.prototypes, self.hidden, self.bottleneck) < 1:
            raise ValueError(
                f"prototypes {self.prototypes}, hidden {self.hidden} and bottleneck "
                f"{self.bottleneck} must be 1 or more"
            )
        if self.layers < 2:
            raise ValueError(f"layers is {self.layers}; the head has a hidden layer, so 2 or more")
        if min(self.student_temperature, self.teacher_temperature) <= 0:
            raise ValueError(
                f"temperatures are {self.student_temperature} and {self.teacher_temperature}; "
                "expected positive numbers"
            )
        if self.centre not in ("run", "crop"):
            raise ValueError(f"centre is {self.centre!r}; expected 'run' or 'crop'")
        if not 0 <= self.centre_momentum <= 1:
            raise ValueError(f"centre_momentum is {self.centre_momentum}; expected 0 to 1")

    def build(self) -> "Distillation":
        """Make the objective; its centre is 0."""
        return Distillation(self)

    def build_head(self, width: int, for_student: bool) -> PrototypeHead:
        """Make a head for representations of this width; both networks have the same."""
        shape = width, self.hidden, self.bottleneck, self.prototypes
        return PrototypeHead(*shape, self.batch_norm, self.layers)


class Distillation(nn.Module):
    """Compares soft classes, and keeps the teacher's centre."""

    def __init__(self, config: DistillationConfig):
        super().__init__()
        self.config = config
        self.register_buffer("centre", torch.zeros(config.prototypes))

    def between_crops(
        self,
        heads: tuple[PrototypeHead, PrototypeHead],
        student: Float[Tensor, "V B D"],
        teacher: Float[Tensor, "W B D"],
        num_targets: int,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " G"]]:
        """Let each of the teacher's first crops teach all other crops of the student.

        Args:
            heads: of the student and of the teacher.
            student: what it says of each crop.
            teacher: what it says of the first crops.
            num_targets: crops that teach; the mean is of all that are given.

        Returns:
            The loss, and the mean that `follow` wants.
        """
        embedded = heads[1].embed(teacher)
        targets, mean = self.teach(heads[1], embedded[:num_targets], embedded)  # [Q, B, G]
        losses = self.cross_entropies(self.say(heads[0], student), targets).mean(dim=-1)  # [Q, V]
        return mean_over_other_crops(losses), mean

    def within_crops(
        self,
        heads: tuple[PrototypeHead, PrototypeHead],
        student: Sequence[Float[Tensor, "_ B _ D"]],
        teacher: Sequence[Float[Tensor, "_ B _ D"]],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " G"]]:
        """Let each patch of the teacher teach the same patch of the same crop.

        Args:
            heads: of the student and of the teacher.
            student: [V, B, N, D] for each size of crops; every crop weighs the same.
            teacher: the same.

        Returns:
            The loss, and the mean that `follow` wants, in which every patch weighs the same.
        """
        ours, theirs = (
            torch.cat([rearrange(part, "v b n d -> (v b n) d") for part in parts])
            for parts in (student, teacher)
        )
        embedded = heads[1].embed(theirs)
        if self.config.centre == "crop":
            embedded = minus_crop_means(embedded, [part.shape for part in teacher])
        losses = self.of_rows(heads, heads[0].embed(ours), embedded)
        mean = heads[1].classify(embedded.mean(dim=0, keepdim=True))[0].float()  # [G]
        of_sizes = losses.split([part.shape[:3].numel() for part in student])
        num_crops = sum(len(part) for part in student)
        shares = (len(part) / num_crops for part in student)
        loss = sum(share * part.mean() for share, part in zip(shares, of_sizes))
        return loss, mean

    def of_rows(
        self,
        heads: tuple[PrototypeHead, PrototypeHead],
        student: Float[Tensor, "rows E"],
        teacher: Float[Tensor, "rows E"],
    ) -> Float[Tensor, " rows"]:
        """Return the loss of each row, embedded by both, some rows at a time.

        Of many rows, what both say is not kept for the backward pass but computed again.
        """

        def compare(ours: Tensor, theirs: Tensor) -> Tensor:
            said = heads[0].classify(ours / self.config.student_temperature)
            return self.cross_entropies(said, self.sharpen(heads[1].classify(theirs))[None])[0]

        pairs = [*zip(student.split(ROWS_AT_ONCE), teacher.split(ROWS_AT_ONCE))]
        if len(pairs) == 1:
            return compare(*pairs[0])
        return torch.cat([forget(compare, *pair) for pair in pairs])

    def teach(
        self,
        head: PrototypeHead,
        some: Float[Tensor, "Q rows E"],
        everything: Float[Tensor, "... E"],
    ) -> tuple[Float[Tensor, "Q rows G"], Float[Tensor, " G"]]:
        """Return targets for some of what the teacher embedded, and its mean logits over all."""
        mean = everything.flatten(0, -2).mean(dim=0, keepdim=True)  # [1, E]
        logits = head.classify(torch.cat([some.flatten(0, 1), mean]))
        return self.sharpen(logits[:-1]).unflatten(0, some.shape[:2]), logits[-1].float()

    def sharpen(self, logits: Float[Tensor, "*B G"]) -> Float[Tensor, "*B G"]:
        """Turn the teacher's logits into probabilities: centred, then sharpened."""
        return ((logits.float() - self.centre) / self.config.teacher_temperature).softmax(dim=-1)

    def say(self, head: PrototypeHead, inputs: Float[Tensor, "*B D"]) -> Float[Tensor, "*B G"]:
        """Return what the student says, over its temperature.

        Divided before the last layer, which is linear and makes many numbers of few.
        """
        return head.classify(head.embed(inputs) / self.config.student_temperature)

    def cross_entropies(
        self, said: Float[Tensor, "... G"], targets: Float[Tensor, "Q ... G"]
    ) -> Float[Tensor, "Q ..."]:
        """Return H(target, softmax of what the student says) for Q sets of targets."""
        said = said.float()
        agreement = torch.stack([(target * said).sum(dim=-1) for target in targets])
        return said.logsumexp(dim=-1) - agreement

    def follow(self, mean: Float[Tensor, " G"]) -> None:
        """Move the centre towards the mean logits of a step, which is that of all ranks."""
        self.centre.lerp_(mean, 1 - self.config.centre_momentum)


def minus_crop_means(
    rows: Float[Tensor, "rows E"], shapes: Sequence[tuple[int, ...]]
) -> Float[Tensor, "rows E"]:
    """Take from each patch the mean over the patches of its crop.

    Before the last layer, which is linear: its mean logits are taken away, too. What is left has
    mean 0, so that the centre of the run stays 0.

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
