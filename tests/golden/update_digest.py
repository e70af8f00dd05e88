"""Recompute the digests of tiny models: `python tests/golden/update_digest.py` shows old and new.

Parameters, pixels and masks are formulas, so the numbers depend on no random generator.
"""

import json
from pathlib import Path

import torch

from mimlib.decoders.context import ContextDecoderConfig
from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.r3d import R3DConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.layers.masking import mask_from_noise
from mimlib.layers.regions import RandomBoxConfig, make_boxes
from mimlib.layers.views.multicrop import MultiCropConfig, MultiCropViews
from mimlib.methods.constcl import ClipViews, ConSTCLConfig
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.methods.croco import CroCoConfig, CroCoViews
from mimlib.methods.mae import MAEConfig, MAEViews
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatchConfig

ENCODER = {"width": 24, "depth": 2, "heads": 3, "patch_size": 8, "image_size": 32}


def waves(shape: tuple[int, ...], step: float) -> torch.Tensor:
    """Numbers in [-1, 1] that look random and are not."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(count * step + step).float().reshape(shape)


def digest_mae() -> dict:
    """Loss, 16 predicted numbers and the norm of the gradient of a tiny MAE."""
    config = MAEConfig(
        encoder=ViTConfig(**ENCODER), decoder_width=16, decoder_depth=2, decoder_heads=2
    )
    mask = mask_from_noise(waves((2, 16), 2.3), config.num_masked)
    return measure(config.build(), MAEViews(waves((2, 3, 32, 32), 3.1), mask))


def digest_convmae() -> dict:
    """The same of a tiny ConvMAE."""
    encoder = ConvViTConfig(
        widths=(8, 16, 24), depths=(1, 1, 2), heads=3, entries=(2, 2, 2), image_size=32
    )
    config = ConvMAEConfig(encoder=encoder, decoder_width=16, decoder_depth=2, decoder_heads=2)
    mask = mask_from_noise(waves((2, 16), 2.3), config.num_masked)
    return measure(config.build(), MAEViews(waves((2, 3, 32, 32), 3.1), mask))


def digest_croco() -> dict:
    """The same of a tiny CroCo v2."""
    encoder = ViTConfig(**ENCODER, class_token=False, rotary=True)
    config = CroCoConfig(encoder=encoder, decoder=PairDecoderConfig(width=16, depth=2, heads=2))
    mask = mask_from_noise(waves((2, 16), 2.3), config.num_masked)
    images = waves((2, 3, 32, 32), 3.1), waves((2, 3, 32, 32), 2.9)
    return measure(config.build(), CroCoViews(*images, mask))


def digest_selfpatch() -> dict:
    """The same of a tiny SelfPatch; its numbers are the teacher's mean logits of patches."""
    encoder = ViTConfig(**ENCODER, class_token=False, learned_positions=True, position_nudge=0.1)
    head = DistillationConfig(prototypes=20, hidden=16, bottleneck=8)
    config = SelfPatchConfig(
        encoder=encoder,
        crops=MultiCropConfig(global_size=32, local_size=24, num_local=2),
        image=head,
        patches=head,
    )
    crops = waves((2, 2, 3, 32, 32), 3.1), waves((2, 2, 3, 24, 24), 2.9)
    return measure(config.build(), MultiCropViews(*crops))


def digest_constcl() -> dict:
    """The same of a tiny ConST-CL in float64; its numbers are its two losses."""
    encoder = R3DConfig(widths=(4, 6), depths=(1, 1), kernels=(1, 3), strides=(1, 2), stem_width=8)
    decoder = ContextDecoderConfig(frames=3, width=8, depth=2, units=2)
    config = ConSTCLConfig(encoder=encoder, decoder=decoder, hidden=16, outputs=8, local_weight=0.5)
    clips = waves((2, 4, 3, 6, 32, 40), 3.1).double()
    boxes = make_boxes(waves((8, 3, 4), 2.3).double() / 2 + 0.5, RandomBoxConfig()).chunk(2)
    valid = torch.ones(2, 4, 3, dtype=torch.bool)
    return measure(config.build().double(), ClipViews(*clips, *boxes, *valid))


def measure(model: torch.nn.Module, views: tuple) -> dict:
    """Fill the parameters with waves, run once, take the numbers."""
    with torch.no_grad():
        for i, (name, parameter) in enumerate(model.named_parameters()):
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(offset + 0.1 * waves(parameter.shape, 1.7 + 0.1 * i))
    output = model(views)
    output.loss.backward()
    learned = (p for p in model.parameters() if p.requires_grad)
    norms = torch.stack([p.grad.double().norm() for p in learned])
    if output.prediction is not None:
        numbers = output.prediction.flatten()
    else:
        numbers = output.state["patches"] if output.state else torch.stack([*output.terms.values()])
    return {
        "loss": float(output.loss.detach()),
        "gradient_norm": float(norms.norm()),
        "prediction": numbers[:: max(1, len(numbers) // 16)][:16].tolist(),
    }


DIGESTS = {
    "mae": digest_mae,
    "convmae": digest_convmae,
    "croco": digest_croco,
    "selfpatch": digest_selfpatch,
    "constcl": digest_constcl,
}

if __name__ == "__main__":
    for name, function in DIGESTS.items():
        stored = Path(__file__).with_name(f"digest_{name}.json")
        print("old:", stored.read_text() if stored.exists() else "none")
        stored.write_text(json.dumps(function(), indent=1) + "\n")
        print("new:", stored.read_text())
