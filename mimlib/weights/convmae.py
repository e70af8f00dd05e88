"""Names of published ConvMAE files (Alpha-VL/ConvMAE), both directions.

Names as MAE's; its linear maps of positions are 1 x 1 convolutions:

    encoder.blocks1.0.conv1.weight [D, D]   <->   blocks1.0.conv1.weight [D, D, 1, 1]
"""

import re
from collections.abc import Mapping

from torch import Tensor

from mimlib.weights.files import strip

POINTWISE = re.compile(r"blocks[12]\.\d+\.(conv[12]|mlp\.fc[12])\.weight")  # linear maps of ours


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Whether maps of positions are stored as convolutions."""
    return any(POINTWISE.match(name) for name in state)


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate shapes; names stay."""
    return {n: t.flatten(1) if POINTWISE.match(n) else t for n, t in state.items()}


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state of a ConvMAE or of a ConvViT."""
    state = strip("encoder.", state)
    return {n: t[..., None, None] if POINTWISE.match(n) else t for n, t in state.items()}
