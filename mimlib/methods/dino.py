"""DINO: self-distillation without labels, and MoBY, which differs in how the networks are compared.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, arXiv
2104.14294:

    student: all crops;  teacher: the two global crops                 section 3.1, figure 2
    loss = mean over teacher's crops q and other crops v of H(teacher(q), student(v))   equation 3

With `image=ContrastConfig(...)` and no local crops it is MoBY (Xie et al., arXiv 2105.04553).

An encoder without class token stands for an image by the mean of its tokens, as Swin's do.

Letters: B images, V crops, D width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mimlib.layers.views.multicrop import NUM_GLOBAL, MultiCropViews
from mimlib.methods.siamese import Network, Siamese, SiameseConfig, encode_crops
from mimlib.protocol import Output


@dataclass(frozen=True, kw_only=True)
class DINOConfig(SiameseConfig):
    """Self-distillation of images."""

    def build(self) -> "DINO":
        """Make the method, freshly initialised."""
        return DINO(self)


class DINO(Siamese):
    """A student that sees all crops predicts the outputs of a teacher for the global ones."""

    def __init__(self, config: DINOConfig):
        super().__init__(config, {"image": config.image})

    def forward(self, views: MultiCropViews) -> Output:
        """Compare student and teacher on different crops of an image."""
        student = self.represent(self.student, views.by_size())  # [V, B, D]
        with torch.no_grad():
            teacher = self.represent(self.teacher, views.by_size()[:1])  # [2, B, D]
        compare = self.objectives["image"].between_crops
        loss, mean = compare(self.both_heads("image"), student, teacher, NUM_GLOBAL)
        state = {} if mean is None else {"image": mean.detach()}
        return Output(loss, {"image": loss.detach()}, state=state)

    def represent(
        self, network: Network, sizes: tuple[Float[Tensor, "_ B 3 _ _"], ...]
    ) -> Float[Tensor, "V B D"]:
        """Return one vector for each crop: its class token or the mean of its tokens."""
        vectors = []
        for crops, (_, tokens, class_token, _) in zip(sizes, encode_crops(network.encoder, sizes)):
            vector = tokens.mean(dim=1) if class_token is None else class_token
            vectors.append(vector.unflatten(0, crops.shape[:2]))  # [V, B, D]
        return torch.cat(vectors)
