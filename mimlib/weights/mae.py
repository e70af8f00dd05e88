"""Names of published MAE (facebookresearch/mae) and ConvMAE files (Alpha-VL/ConvMAE), both ways.

Inside an encoder our names are the published ones, so a published name is ours without `encoder.`.
ConvMAE's linear maps of positions are 1 x 1 convolutions there:

    encoder.blocks.0.attn.qkv.weight            <->   blocks.0.attn.qkv.weight
    encoder.blocks1.0.conv1.weight [D, D]       <->   blocks1.0.conv1.weight [D, D, 1, 1]
    decoder_blocks.0.norm1.bias                 <->   decoder_blocks.0.norm1.bias
"""

import re
from collections.abc import Mapping

from torch import Tensor

from mimlib.weights.files import strip

POINTWISE = re.compile(r"blocks[12]\.\d+\.(conv[12]|mlp\.fc[12])\.weight")  # linear maps of ours


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate shapes; which names are the encoder's is known to whoever takes them."""
    return {n: t.flatten(1) if POINTWISE.match(n) else t for n, t in state.items()}


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state of an MAE, a ConvMAE or one of their encoders."""
    state = strip("encoder.", state)
    return {n: t[..., None, None] if POINTWISE.match(n) else t for n, t in state.items()}
