"""ConST-CL: clips are told apart, and regions are carried from one clip of a video to the other.

Yuan et al., "Contextualized Spatio-Temporal Contrastive Learning with Self-Supervision", CVPR 2022,
arXiv 2112.05181:

    F = f(clip),  h = RoIAlign(F, r),  z = g(h, F'_c)     region r of one clip, context of the other
    loss = L_global + weight L_local                      objectives/clips.py

The network is a Y: both losses share all stages but the last, of which each has its own. Without
the local loss this is CVRL (Qian et al., CVPR 2021, arXiv 2008.03800); without context, g maps a
region by itself, and what is left is contrast between regions.

As official, the second loss has a weight of 0.001, and its targets learn, too.

Letters: B videos, T frames of a clip, D width of the encoder, E width of a clip's vector, R regions
of a clip, t, h and w the grid of the last stage, h2 and w2 that of the one before.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.checks import check_choice, check_positive, check_range
from mimlib.data.batches import ClipPairBatch
from mimlib.decoders.context import ContextDecoderConfig
from mimlib.encoders.r3d import R3DConfig
from mimlib.layers.blocks import initialize
from mimlib.layers.projection import RowNorm
from mimlib.layers.regions import RandomBoxConfig, key_frame, normalize_length, pool_regions
from mimlib.methods.objectives.clips import contrast_clips, contrast_regions, match_regions
from mimlib.protocol import Output, Trainable


@dataclass(frozen=True, kw_only=True)
class ConSTCLConfig:
    """Two losses on one encoder. Defaults: the published settings."""

    encoder: R3DConfig = R3DConfig()
    decoder: ContextDecoderConfig = ContextDecoderConfig()  # g; frames=0: regions without context
    boxes: RandomBoxConfig | None = RandomBoxConfig()  # None: those of the batch
    branches: Literal["y", "shared"] = "y"  # a last stage for each loss, or one for both
    hidden: int = 2048  # width of the head of clips
    hidden_layers: int = 3  # of that head
    outputs: int = 128  # E
    global_temperature: float = 0.1  # tau, between clips
    local_temperature: float = 0.2  # tau, between regions
    local_weight: float = 0.001  # of the local loss beside the global one; 0: there is none (CVRL)

    def __post_init__(self):
        check_positive(self, "hidden", "outputs", "global_temperature", "local_temperature")
        check_range(self, "hidden_layers", "local_weight", least=0)
        check_choice(self, "branches", ("y", "shared"))
        if len(self.encoder.widths) < 2:
            raise ValueError(
                f"the encoder has widths {self.encoder.widths}, one stage, which leaves nothing to "
                "share; give it two stages or more"
            )

    def build(self) -> "ConSTCL":
        """Make the method, freshly initialised."""
        return ConSTCL(self)


class ClipViews(NamedTuple):
    """Two clips of each video, and regions of both."""

    clip_a: Tensor  # [B, 3, T, H, W] from -1 to 1
    clip_b: Tensor
    boxes_a: Tensor  # [B, R, 4] xyxy in shares of the frame
    boxes_b: Tensor
    valid_a: Tensor  # [B, R] bool, which boxes count
    valid_b: Tensor


class ConSTCL(Trainable):
    """An encoder of clips that splits in two, a head for clips and a decoder for regions."""

    def __init__(self, config: ConSTCLConfig):
        super().__init__()
        self.config, width = config, config.encoder.width
        self.encoder = config.encoder.build()  # with the branch of the global loss
        widths, layers = [width] + [config.hidden] * config.hidden_layers, []
        for inputs, hidden in pairwise(widths):
            layers += [nn.Linear(inputs, hidden, bias=False), RowNorm(hidden), nn.ReLU()]
        self.global_head = nn.Sequential(*layers, nn.Linear(widths[-1], config.outputs))
        self.global_head.apply(initialize)
        self.local_stage = self.decoder = None
        if config.local_weight:
            self.decoder = config.decoder.build(width)
            if config.branches == "y":
                self.local_stage = config.encoder.build_stage(-1)

    def sample_views(self, batch: ClipPairBatch, generator: torch.Generator) -> ClipViews:
        """Draw boxes in both clips, or take the batch's; clips are crops already."""
        clips = [clip.float() / 127.5 - 1 for clip in (batch.clip_a, batch.clip_b)]
        if self.config.boxes is not None:
            boxes = [self.config.boxes.draw(len(clip), generator) for clip in clips]
            valid = [torch.ones_like(each[..., 0], dtype=torch.bool) for each in boxes]
            return ClipViews(*clips, *boxes, *valid)
        if batch.boxes_a is None or batch.boxes_b is None:
            raise ValueError("the batch has no boxes; give it some, or set boxes to draw them")
        given = (batch.boxes_a, batch.boxes_b)
        valid = [(each[..., 2:] > each[..., :2]).all(dim=-1) for each in given]
        height, width = clips[0].shape[-2:]
        boxes = [each / each.new_tensor([width, height, width, height]) for each in given]
        return ClipViews(*clips, *boxes, *valid)

    def forward(self, views: ClipViews) -> Output:
        """Compare clips with all others, and regions with those of all other videos."""
        clips = torch.cat([views.clip_a, views.clip_b])
        shared, last = self.encoder(clips, levels=(-2, -1)).levels
        vectors = normalize_length(self.embed(last))
        loss = contrast_clips(*vectors.chunk(2), self.config.global_temperature)
        terms = {"global": loss.detach()}
        if self.decoder is not None:
            local = self.contrast_both(*self.decode(self.local_maps(shared, last), views), views)
            loss, terms["local"] = loss + self.config.local_weight * local, local.detach()
        return Output(loss, terms)

    def embed(self, maps: Float[Tensor, "clips D t h w"]) -> Float[Tensor, "clips E"]:
        """Return a vector for each clip, of any length."""
        return self.global_head(maps.mean(dim=(2, 3, 4)))

    def local_maps(
        self, shared: Float[Tensor, "clips C t h2 w2"], last: Float[Tensor, "clips D t h w"]
    ) -> Float[Tensor, "clips D t h w"]:
        """Return the maps that regions are looked up in: of a branch of their own if it is a Y."""
        return last if self.local_stage is None else self.local_stage(shared)

    def decode(
        self, maps: Float[Tensor, "clips D t h w"], views: ClipViews
    ) -> tuple[Float[Tensor, "clips R D"], Float[Tensor, "clips R D"]]:
        """Return the regions of all clips, and what becomes of each in the video's other clip."""
        voxels = normalize_length(maps, dim=1)
        boxes = torch.cat([views.boxes_a, views.boxes_b])
        regions = pool_regions(key_frame(voxels), boxes)  # [2 * B, R, D]
        memory = self.decoder.remember(voxels)
        if memory is not None:
            memory = memory.roll(len(memory) // 2, dims=0)  # of the other clip
        return regions, self.decoder(regions, memory)

    def contrast_both(
        self,
        regions: Float[Tensor, "clips R D"],
        decoded: Float[Tensor, "clips R D"],
        views: ClipViews,
    ) -> Float[Tensor, ""]:
        """Return the local loss, the mean of both directions."""
        a, b = normalize_length(regions).chunk(2)
        from_a, from_b = normalize_length(decoded).chunk(2)
        of_a, of_b = match_regions(a, b)
        tau = self.config.local_temperature
        forth = contrast_regions(from_a, b, of_a, tau, views.valid_a)
        back = contrast_regions(from_b, a, of_b, tau, views.valid_b)
        return (forth + back) / 2
