"""SelfPatch: each patch learns what the patches around it, that look like it, have in common.

Yun, Lee, Kim, Shin, "Patch-level Representation Learning for Self-supervised Vision Transformers",
CVPR 2022, arXiv 2206.07990, on top of DINO (methods/dino.py):

    positives of a patch = its k most similar neighbours, by the teacher's tokens      section 3.1
    teacher(patch) = LN(aggregate(positives)),  student(patch) = LN(token)             section 3.2
    loss = loss of DINO + 0.1 loss of patches, same crop and same patch

Images are summed up by the same aggregator (class attention over all tokens), so the encoder has
no class token; its final norm is the aggregator's. As official: the teacher sees local crops too,
and its center of images is the mean over all crops.

The same function as the official code, reordered so that no work is thrown away: layers/neighbors,
layers/class_attention and methods/objectives/distillation say how.

Letters: B images, V crops of one size, N patches of a crop, D width, k neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mimlib.checks import check_positive, check_range
from mimlib.layers.neighbors import EVERYWHERE, Neighbors, check_window, nearest_neighbors
from mimlib.layers.views.multicrop import NUM_GLOBAL, MultiCropViews
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.siamese import Network, ObjectiveConfig, Siamese, SiameseConfig, encode_crops
from mimlib.protocol import Output


@dataclass(frozen=True, kw_only=True)
class SelfPatchConfig(SiameseConfig):
    """DINO and a loss for patches. Defaults: as official."""

    patches: ObjectiveConfig = DistillationConfig(prototypes=4096)  # how patches are compared
    patch_weight: float = 0.1  # lambda; 0: images alone, summed up by the aggregator
    window: int = 3  # patches, side of the neighbourhood; 0: the whole image
    k: int = 4  # neighbours that are a patch's positives
    wrap: bool = True  # as official, neighbourhoods reach over the border to the other side
    aggregate: bool = True  # False: the teacher's own token is the target, without neighbours
    aggregator_heads: int = 0  # attention heads of the aggregator; 0: as many as the encoder has
    aggregator_depth: int = 2  # blocks of the aggregator

    def __post_init__(self):
        super().__post_init__()
        if getattr(self.encoder, "class_token", False):
            raise ValueError(
                "SelfPatch sums up images by class attention; give its encoder class_token=False"
            )
        check_range(self, "patch_weight", least=0)
        check_positive(self, "aggregator_depth")
        if self.encoder.width % self.num_heads:
            raise ValueError(
                f"width {self.encoder.width} does not divide into {self.num_heads} heads; set "
                "aggregator_heads"
            )
        for size in self.crops.sizes if self.aggregate and self.patch_weight else ():
            side = size // self.encoder.patch_size
            check_window((side, side), self.window, self.wrap)
            near = (side if self.window == EVERYWHERE else self.window) ** 2 - 1
            if not 1 <= self.k <= near:
                raise ValueError(f"k is {self.k}, but {near} patches are near; choose 1 to {near}")

    @property
    def num_heads(self) -> int:
        """Attention heads of the aggregator."""
        heads = self.encoder.heads
        return self.aggregator_heads or (heads if isinstance(heads, int) else heads[-1])

    def build(self) -> "SelfPatch":
        """Make the method, freshly initialised."""
        return SelfPatch(self)


class SelfPatch(Siamese):
    """Student and teacher, compared by images and by patches."""

    def __init__(self, config: SelfPatchConfig):
        objectives = {"image": config.image}
        if config.patch_weight:
            objectives["patches"] = config.patches
        super().__init__(config, objectives, (config.num_heads, config.aggregator_depth))

    def forward(self, views: MultiCropViews) -> Output:
        """Compare images between crops, patches within each crop."""
        images, patches = self.represent(self.student, views.by_size())
        with torch.no_grad():
            their_images, their_patches = self.represent(self.teacher, views.by_size(), True)
        compare = self.objectives["image"].between_crops
        loss, mean = compare(self.both_heads("image"), images, their_images, NUM_GLOBAL)
        terms, means = {"image": loss.detach()}, {"image": mean}
        if self.config.patch_weight:
            compare, heads = self.objectives["patches"].within_crops, self.both_heads("patches")
            of_patches, means["patches"] = compare(heads, patches, their_patches)
            terms["patches"] = of_patches.detach()
            loss = loss + self.config.patch_weight * of_patches
        state = {name: mean.detach() for name, mean in means.items() if mean is not None}
        return Output(loss, terms, state=state)

    def represent(
        self,
        network: Network,
        by_size: Sequence[Float[Tensor, "_ B 3 _ _"]],
        of_positives: bool = False,
    ) -> tuple[Float[Tensor, "V B D"], list[Float[Tensor, "_ B _ D"]]]:
        """Return a vector for each crop, and for each size one for each patch of each crop.

        Args:
            network: student or teacher.
            by_size: crops of each size.
            of_positives: a patch's vector sums up its positives (the teacher's); else it is its
                own token (the student's).
        """
        encoded = encode_crops(network.encoder, by_size)
        wanted = of_positives and self.config.aggregate and self.config.patch_weight > 0
        neighbors = [self.positives(each.raw, each.grid) for each in encoded] if wanted else []
        images, around = network.aggregator([each.raw for each in encoded], neighbors)
        norm = network.encoder.norm
        patches = map(norm, around) if wanted else (each.tokens for each in encoded)
        return (
            norm(images).unflatten(0, (-1, by_size[0].shape[1])),
            [part.unflatten(0, crops.shape[:2]) for part, crops in zip(patches, by_size)],
        )

    def positives(self, raw: Float[Tensor, "B N D"], grid: tuple[int, int]) -> Neighbors:
        """Choose the positives of each patch, by tokens as the last block leaves them."""
        config = self.config
        return nearest_neighbors(raw, grid, config.k, config.window, config.wrap)
