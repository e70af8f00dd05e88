"""CroCo: complete a masked image with the help of a second view of the same scene.

Weinzaepfel et al., "CroCo: Self-Supervised Pre-training for 3D Vision Tasks by Cross-View
Completion", NeurIPS 2022, arXiv 2210.10716; with rotary positions and larger decoders: "CroCo v2:
Improved Cross-view Completion Pre-training for Stereo Matching and Optical Flow", ICCV 2023, arXiv
2211.10408.

    memory_1   = encoder(visible patches of image 1)                       section 3, "Encoder"
    memory_2   = encoder(all patches of image 2)         the same weights
    prediction = decoder([memory_1 ; mask tokens], memory_2)               section 3, "Decoder"
    loss       = mean over masked patches of image 1 |prediction - target|^2

The same function as the official code, reordered so that no work is thrown away:
    - one pass of the encoder for both images, which do not see each other;
    - the decoder sees image 1 as [visible, masked]; attention does not care about the order, so
      nothing is put back in its place;
    - the last decoder block, the prediction and the loss are computed for masked patches only.

Letters: B pairs, N patches, V visible, M masked, D encoder width, E decoder width, A heads, P patch
side.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.blocks import initialize
from mimlib.layers.masking import mask_from_noise
from mimlib.layers.patches import grid_of, normalize, patchify
from mimlib.methods.objectives.masked import Grid, Hidden, MaskedConfig, MaskedMethod, Patches
from mimlib.protocol import Output, PatchMask


@dataclass(frozen=True, kw_only=True)
class CroCoConfig(MaskedConfig):
    """A cross-view completion model. Defaults: the first paper, section 4."""

    encoder: ViTConfig  # without class token; rotary positions make it CroCo v2
    decoder: PairDecoderConfig = PairDecoderConfig()  # of both versions' small size
    mask_ratio: float = 0.9  # part of the patches of image 1 that is hidden (figure 4)

    def __post_init__(self):
        super().__post_init__()
        if self.encoder.class_token:
            raise ValueError(
                "CroCo has no class token; give its encoder class_token=False "
                '(vit_config("B", 16, 224, class_token=False))'
            )
        if self.encoder.rotary and self.decoder.width // self.decoder.heads % 4:
            raise ValueError(
                f"decoder width {self.decoder.width} and {self.decoder.heads} heads give "
                f"{self.decoder.width // self.decoder.heads} channels per head; rotary positions "
                "need a multiple of 4"
            )

    def count_masked(self, num_patches: int) -> int:
        """Turn the ratio into a count as the paper's code does: floor(N * ratio).

        0.9 of 196 hides 176; MAE, which rounds what is visible, would hide 177.
        """
        return int(num_patches * self.mask_ratio)

    def build(self) -> "CroCo":
        """Make the method, freshly initialised."""
        return CroCo(self)


class CroCoViews(NamedTuple):
    """What CroCo sees of a batch of pairs."""

    image_1: Tensor  # [B, 3, H, W] float32, ImageNet-normalised; masked
    image_2: Tensor  # [B, 3, H, W] float32, ImageNet-normalised; complete
    mask: PatchMask  # of image 1


class CroCo(MaskedMethod):
    """A siamese encoder, and a decoder that completes one image by looking at the other."""

    def __init__(self, config: CroCoConfig):
        super().__init__()
        self.config = config
        self.patch_size = config.encoder.patch_size
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build(config.encoder)
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.decoder.width))
        self.decoder_pred = nn.Linear(config.decoder.width, self.patch_size**2 * 3)
        self.decoder_pred.apply(initialize)
        nn.init.normal_(self.mask_token, std=0.02)

    def sample_views(self, batch: tuple, generator: torch.Generator) -> CroCoViews:
        """Normalise the pair (uint8, of any batch that has one) and mask image 1.

        Raises:
            ValueError: if there is no pair, or if its images differ in size.
        """
        image_1, image_2 = _pair_of(batch)
        h, w = grid_of(image_1, self.patch_size)
        num_masked = self.config.count_masked(h * w)
        noise = torch.rand(len(image_1), h * w, generator=generator, device=image_1.device)
        # as official: the order of the noise, not the noise, says who is hidden: its first places.
        mask = mask_from_noise(-noise.argsort(dim=1), num_masked)
        return CroCoViews(normalize(image_1), normalize(image_2), mask)

    def forward(self, views: CroCoViews) -> Output:
        """Predict the masked patches of image 1; `prediction` and `target` are [B, M, P*P*3]."""
        grid = grid_of(views.image_1, self.patch_size)
        patches_1 = patchify(views.image_1, self.patch_size)  # [B, N, P*P*3]
        patches_2 = patchify(views.image_2, self.patch_size)  # [B, N, P*P*3]
        memory_1, memory_2 = self.encode(patches_1, patches_2, views.mask, grid)
        prediction = self.decode(memory_1, memory_2, views.mask, grid)  # [B, M, P*P*3]
        return self.score(prediction, patches_1, views.mask, "completion")

    def encode(
        self, patches_1: Patches, patches_2: Patches, mask: PatchMask, grid: Grid
    ) -> tuple[Float[Tensor, "B V D"], Float[Tensor, "B N D"]]:
        """Encode the visible patches of image 1 and all of image 2, each for itself."""
        both = self.encoder.encode_together((patches_1, patches_2), (grid, grid), (mask, None))
        return both[0].tokens, both[1].tokens

    def decode(
        self,
        memory_1: Float[Tensor, "B V D"],
        memory_2: Float[Tensor, "B N D"],
        mask: PatchMask,
        grid: Grid,
    ) -> Hidden:
        """Predict the pixels of the masked patches of image 1."""
        tokens, order = self.fill_in(memory_1, mask)  # [B, N, E]
        memory = self.decoder.embed(memory_2)  # [B, N, E]
        num_masked = mask.masked.shape[1]
        completed = self.decoder(tokens, memory, grid, order, num_masked).tokens  # [B, M, E]
        return self.decoder_pred(completed)  # [B, M, P*P*3]

    def fill_in(
        self, memory_1: Float[Tensor, "B V D"], mask: PatchMask
    ) -> tuple[Float[Tensor, "B N E"], Int[Tensor, "B N"]]:
        """Append a mask token for each masked patch; return the tokens and their patches."""
        mask_tokens = self.mask_token.expand(*mask.masked.shape, -1)  # [B, M, E]
        tokens = torch.cat([self.decoder.embed(memory_1), mask_tokens], dim=1)  # [B, N, E]
        return tokens, torch.cat([mask.visible, mask.masked], dim=1)

    @torch.no_grad()
    def cross_attention_maps(self, views: CroCoViews, block: int = -1) -> Float[Tensor, "B A N N"]:
        """Return where each patch of image 1 (row, masked ones too) looks in image 2 (column).

        A mask that hides nothing shows how complete images are matched. Rows sum to 1; those of
        a CatBlock to less, as its tokens also look at their own image.
        """
        grid = grid_of(views.image_1, self.patch_size)
        patches = [patchify(image, self.patch_size) for image in views[:2]]
        memory_1, memory_2 = self.encode(*patches, views.mask, grid)
        tokens, order = self.fill_in(memory_1, views.mask)
        memory = self.decoder.embed(memory_2)
        maps = self.decoder.cross_attention_maps(tokens, memory, grid, order, block)
        back = order.argsort(dim=1)[:, None, :, None].expand(maps.shape)  # [B, A, N, N]
        return maps.gather(2, back)


def _pair_of(batch: tuple) -> tuple[Tensor, Tensor]:
    """Read both images, or say what is wrong with the batch."""
    images = [getattr(batch, name, None) for name in ("image_1", "image_2")]
    if any(image is None for image in images):
        raise ValueError(
            f"CroCo needs image_1 and image_2, but {type(batch).__name__} does not have both; "
            "use a source of pairs (data/pairs/)"
        )
    if images[0].shape != images[1].shape:
        shapes = " and ".join(str(tuple(image.shape)) for image in images)
        raise ValueError(f"the images of a pair have shapes {shapes}; crop both to one size")
    return images[0], images[1]
