"""Tiny instances of every pre-training method, for the tests of what they have in common."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mimlib.data.batches import ImageBatch, PairBatch
from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.patches import grid_of, patchify, unpatchify
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.methods.croco import CroCoConfig
from mimlib.methods.mae import MAEConfig

PATCH = 8  # pixels
VIT = {"width": 24, "depth": 2, "heads": 3, "patch_size": PATCH, "image_size": 32}
CONVVIT = {
    "widths": (8, 16, 24), "depths": (1, 1, 2), "heads": 3, "entries": (2, 2, 2), "image_size": 32,
}  # fmt: skip
DECODER = {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}


def mae(class_token=True, **changes):
    """A tiny MAE."""
    return MAEConfig(encoder=ViTConfig(**VIT, class_token=class_token), **{**DECODER, **changes})


def convmae(encoder=(), **changes):
    """A tiny ConvMAE; `encoder` changes fields of its encoder."""
    return ConvMAEConfig(
        encoder=ConvViTConfig(**{**CONVVIT, **dict(encoder)}), **{**DECODER, **changes}
    )


def croco(kind="cross", rotary=False, **changes):
    """A tiny CroCo."""
    decoder = PairDecoderConfig(width=16, depth=2, heads=2, kind=kind)
    return CroCoConfig(
        encoder=ViTConfig(**VIT, class_token=False, rotary=rotary),
        **{"decoder": decoder, "mask_ratio": 0.75, **changes},
    )


@dataclass(frozen=True)
class Case:
    """A method, and what differs between methods."""

    configure: Callable  # takes changes of the config
    masked_image: str = "images"  # the field of the views whose patches are hidden
    wide: tuple = ()  # changes that make it large enough to learn two images by heart

    def build(self, **changes):
        """The method, always with the same weights."""
        torch.manual_seed(0)
        return self.configure(**changes).build()

    def draw(self, method, batch=2, size=(32, 32), seed=0):
        """Views of noise."""
        generator = torch.Generator().manual_seed(seed)
        return method.sample_views(noise(self.masked_image, batch, size, generator), generator)

    def image(self, views):
        """The image whose patches are hidden."""
        return getattr(views, self.masked_image)

    def with_image(self, views, image):
        """The same views with another image whose patches are hidden."""
        return views._replace(**{self.masked_image: image})

    def replace_pixels(self, views, where):
        """The same views with other pixels in the patches `where` [B, N]."""
        image = self.image(views)
        patches = patchify(image, PATCH)
        mixed = torch.where(where[:, :, None], torch.randn_like(patches) * 10, patches)
        return self.with_image(views, unpatchify(mixed, PATCH, grid_of(image, PATCH)))

    def predict(self, method, views):
        """The prediction with its gradient; `forward` returns it detached."""
        images = [view for view in views if isinstance(view, torch.Tensor)]
        patches = [patchify(image, PATCH) for image in images]
        grid = grid_of(images[0], PATCH)
        memory = method.encode(*patches, views.mask, grid)
        memory = memory if isinstance(memory, tuple) else (memory,)
        return method.decode(*memory, views.mask, grid)


def noise(kind, batch, size, generator):
    """A batch of noise, of single images or of pairs."""
    pairs = 1 if kind == "images" else 2
    shape = (pairs, batch, 3, *size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return ImageBatch(*images) if pairs == 1 else PairBatch(*images)


def rows_of(views, rows):
    """Some samples of views."""
    mask = type(views.mask)(*(index[rows] for index in views.mask))
    images = {
        name: view[rows] for name, view in views._asdict().items() if isinstance(view, torch.Tensor)
    }
    return views._replace(**images)._replace(mask=mask)


def gradients(method, parts):
    """The gradient of the mean loss of several views, as one vector."""
    method.zero_grad()
    for views in parts:
        (method(views).loss / len(parts)).backward()
    return torch.cat([p.grad.flatten() for p in method.parameters()])


WIDE_DECODER = (("decoder_width", 32),)
CASES = {
    "mae": Case(mae, wide=WIDE_DECODER),
    "mae-no-class": Case(lambda **c: mae(class_token=False, **c), wide=WIDE_DECODER),
    "convmae": Case(convmae, wide=WIDE_DECODER),
    "convmae-one-scale": Case(lambda **c: convmae(multi_scale=False, **c), wide=WIDE_DECODER),
    "convmae-fast": Case(lambda **c: convmae(complementary=True, **c), wide=WIDE_DECODER),
} | {
    f"croco-{kind}{'-rope' * rotary}": Case(
        lambda kind=kind, rotary=rotary, **c: croco(kind, rotary, **c),
        masked_image="image_1",
        wide=(("decoder", PairDecoderConfig(width=32, depth=2, heads=2, kind=kind)),),
    )
    for kind in ("cross", "cat")
    for rotary in (False, True)
}
PLAIN = ("mae", "convmae", "croco-cross-rope")  # one of each method
