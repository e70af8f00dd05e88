"""Contrastive objectives: the student predicts the teacher's vector, which is told from others'.

Xie et al., "Self-Supervised Learning with Swin Transformers" (MoBY), arXiv 2105.04553, after MoCo
(arXiv 1911.05722) and BYOL (arXiv 2006.07733):

    loss = - log exp(q . k+ / tau) / sum_k exp(q . k / tau)            with negatives (MoCo)
    loss = 2 - 2 q . k+                                                without (BYOL)

with q = predictor(projector(student)) and k = projector(teacher), both of unit length.

# differs from official: negatives are the other images of the same step, of all ranks (as in MoCo
# v3, arXiv 2104.02057), not a queue of earlier ones. A patch has the same patch of other images.

Letters: B images, C images of all ranks, V crops, Q crops of the teacher, N patches, D width, E
width of the space in which vectors are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.checks import check_positive
from mimlib.layers.collectives import gather_from_ranks
from mimlib.layers.projection import ContrastHead
from mimlib.methods.objectives.distillation import mean_over_other_crops

Heads = tuple[nn.Module, nn.Module]  # of the student and of the teacher


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """How the student is compared to the teacher. Defaults: MoBY's."""

    negatives: bool = True  # tell the teacher's vector from those of other images
    temperature: float = 0.2  # tau, with negatives
    hidden: int = 4096  # width of projector and predictor
    outputs: int = 256  # E

    def __post_init__(self):
        check_positive(self, "hidden", "outputs", "temperature")

    def build(self) -> "Contrast":
        """Make the objective."""
        return Contrast(self)

    def build_head(self, width: int, for_student: bool) -> nn.Sequential:
        """Make a projector for representations of this width; the student also predicts."""
        projector = ContrastHead(width, self.hidden, self.outputs)
        predictor = [ContrastHead(self.outputs, self.hidden, self.outputs)] if for_student else []
        return nn.Sequential(projector, *predictor)


class Contrast(nn.Module):
    """Compares vectors of unit length; keeps nothing."""

    def __init__(self, config: ContrastConfig):
        super().__init__()
        self.config = config

    def between_crops(
        self,
        heads: Heads,
        student: Float[Tensor, "V B D"],
        teacher: Float[Tensor, "W B D"],
        num_targets: int,
    ) -> tuple[Float[Tensor, ""], None]:
        """Let each of the teacher's first crops be predicted from all other crops."""
        queries = self.embed(heads[0], student)[:, :, None]  # [V, B, 1, E]
        keys = self.embed(heads[1], teacher[:num_targets])[:, :, None]  # [Q, B, 1, E]
        losses = [self.compare(queries, key.expand_as(queries)) for key in keys]
        return mean_over_other_crops(torch.stack(losses)), None

    def within_crops(
        self,
        heads: Heads,
        student: Sequence[Float[Tensor, "_ B _ D"]],
        teacher: Sequence[Float[Tensor, "_ B _ D"]],
    ) -> tuple[Float[Tensor, ""], None]:
        """Let each patch of the teacher be predicted from the same patch of the same crop."""
        losses = [
            self.compare(self.embed(heads[0], ours), self.embed(heads[1], theirs))
            for ours, theirs in zip(student, teacher)
        ]
        return torch.cat(losses).mean(), None

    def embed(self, head: nn.Module, inputs: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        """Project onto the unit sphere."""
        outputs = head(inputs.flatten(0, -2)).float()
        return F.normalize(outputs, dim=-1).unflatten(0, inputs.shape[:-1])

    def compare(
        self, queries: Float[Tensor, "V B N E"], keys: Float[Tensor, "V B N E"]
    ) -> Float[Tensor, " V"]:
        """Return the mean loss of each crop."""
        if not self.config.negatives:
            return 2 - 2 * (queries * keys).sum(dim=-1).mean(dim=(1, 2))
        everyone, first = gather_from_ranks(rearrange(keys, "v b n e -> b v n e"))
        cosine = torch.einsum("vbne,cvne->vnbc", queries, everyone).float()
        own = torch.arange(first, first + queries.shape[1], device=queries.device)
        logits = rearrange(cosine / self.config.temperature, "v n b c -> (v n b) c")
        losses = F.cross_entropy(logits, own.repeat(len(logits) // len(own)), reduction="none")
        return losses.unflatten(0, (len(queries), -1)).mean(dim=1)
