"""Tiny students and teachers of every kind, for the tests of what they have in common."""

from dataclasses import replace

import torch

from mimlib.data.batches import ImageBatch
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.swin import SwinConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.views.multicrop import MultiCropConfig
from mimlib.methods.dino import DINOConfig
from mimlib.methods.objectives.contrast import ContrastConfig
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatchConfig

VIT = {
    "width": 24, "depth": 2, "heads": 3, "patch_size": 8, "image_size": 32,
    "learned_positions": True, "position_nudge": 0.1,
}  # fmt: skip
PLAIN = ViTConfig(**VIT, class_token=False)
WITH_CLASS = ViTConfig(**VIT)
TURNED = replace(WITH_CLASS, learned_positions=False, rotary=True)
SWIN = SwinConfig(
    first_width=8, depths=(1, 2), heads=(1, 2), first_patch=4, window=2, image_size=32
)
HYBRID = ConvViTConfig(
    widths=(8, 16, 24), depths=(1, 1, 1), heads=3, entries=(2, 2, 2), image_size=32
)
CROPS = MultiCropConfig(global_size=32, local_size=24, num_local=3, blur=(0.1, 0.5))
TWO = MultiCropConfig(global_size=32, num_local=0, blur=(0.1, 0.5))
IMAGES = DistillationConfig(prototypes=20, hidden=16, bottleneck=8)
PATCHES = DistillationConfig(prototypes=12, hidden=16, bottleneck=8)
NEGATIVES = ContrastConfig(hidden=16, outputs=8)
POSITIVES = ContrastConfig(negatives=False, hidden=16, outputs=8)
DINO = {"encoder": WITH_CLASS, "crops": CROPS, "image": IMAGES}
SELFPATCH = {"encoder": PLAIN, "crops": CROPS, "image": IMAGES, "patches": PATCHES}

CASES = {
    "dino": (DINOConfig, DINO),
    "dino-rope": (DINOConfig, DINO | {"encoder": TURNED}),
    "dino-swin": (DINOConfig, DINO | {"encoder": SWIN}),
    "moby": (DINOConfig, DINO | {"image": NEGATIVES, "crops": TWO}),
    "moby-swin-positives": (DINOConfig, DINO | {"image": POSITIVES, "encoder": SWIN}),
    "selfpatch": (SelfPatchConfig, SELFPATCH),
    "selfpatch-padded": (SelfPatchConfig, SELFPATCH | {"wrap": False}),
    "selfpatch-centred-by-crop": (
        SelfPatchConfig, SELFPATCH | {"patches": replace(PATCHES, center="crop")},
    ),
    "selfpatch-hybrid": (SelfPatchConfig, SELFPATCH | {"encoder": HYBRID}),
    "selfpatch-no-patches": (SelfPatchConfig, SELFPATCH | {"patch_weight": 0.0}),
    "selfpatch-no-neighbours": (SelfPatchConfig, SELFPATCH | {"aggregate": False}),
    "selfpatch-moby": (
        SelfPatchConfig, SELFPATCH | {"image": NEGATIVES, "patches": NEGATIVES, "crops": TWO},
    ),
    "selfpatch-positives": (
        SelfPatchConfig, SELFPATCH | {"image": POSITIVES, "patches": POSITIVES},
    ),
}  # fmt: skip
DISTILLED = [name for name in CASES if "moby" not in name and "positives" not in name]


def configure(name, **changes):
    """The configuration of a case."""
    kind, fields = CASES[name]
    return kind(**fields | changes)


def build(name, **changes):
    """The method of a case, always with the same weights, the teacher unlike the student."""
    torch.manual_seed(0)
    method = configure(name, **changes).build()
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return method


def images(batch=2, size=(40, 48), seed=0):
    """Smooth noise."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 5, 6, generator=draw)
    fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return ImageBatch((fine * 255).to(torch.uint8))


def draw_views(method, batch=2, seed=0):
    """Crops of noise."""
    return method.sample_views(images(batch), torch.Generator().manual_seed(seed))


def rows_of(views, rows):
    """The crops of some images."""
    return type(views)(*(crops[:, rows] for crops in views))


def trained(method):
    """The parameters that learn."""
    return {n: p for n, p in method.named_parameters() if p.requires_grad}


def gradients(method, parts):
    """The gradient of the mean loss of several views, as one vector."""
    method.zero_grad()
    for views in parts:
        (method(views).loss / len(parts)).backward()
    return torch.cat([p.grad.flatten() for p in trained(method).values()])
