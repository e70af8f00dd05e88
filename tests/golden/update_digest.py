"""Recompute the digest of a tiny MAE: `python tests/golden/update_digest.py` shows old and new.

Parameters, pixels and masks are formulas, so the numbers depend on no random generator.
"""

import json
from pathlib import Path

import torch

from mimlib.encoders.vit import ViTConfig
from mimlib.layers.masking import mask_from_noise
from mimlib.methods.mae import MAEConfig, MAEViews

STORED = Path(__file__).with_name("digest_mae.json")


def waves(shape: tuple[int, ...], step: float) -> torch.Tensor:
    """Numbers in [-1, 1] that look random and are not."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(count * step + step).float().reshape(shape)


def digest() -> dict:
    """Loss, 16 predicted numbers and the norm of the gradient of a tiny model."""
    encoder = ViTConfig(width=24, depth=2, heads=3, patch_size=8, image_size=32)
    model = MAEConfig(encoder=encoder, decoder_width=16, decoder_depth=2, decoder_heads=2).build()
    with torch.no_grad():
        for i, (name, parameter) in enumerate(model.named_parameters()):
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(offset + 0.1 * waves(parameter.shape, 1.7 + 0.1 * i))
    noise = waves((2, 16), 2.3)
    views = MAEViews(waves((2, 3, 32, 32), 3.1), mask_from_noise(noise, model.config.num_masked))
    output = model(views)
    output.loss.backward()
    norms = torch.stack([p.grad.double().norm() for p in model.parameters()])
    numbers = output.prediction.flatten()
    return {
        "loss": float(output.loss.detach()),
        "gradient_norm": float(norms.norm()),
        "prediction": numbers[:: len(numbers) // 16][:16].tolist(),
    }


if __name__ == "__main__":
    new = digest()
    print("old:", STORED.read_text() if STORED.exists() else "none")
    STORED.write_text(json.dumps(new, indent=1) + "\n")
    print("new:", STORED.read_text())
