"""Names of published MAE files (facebookresearch/mae), both directions.

Inside an encoder our names are the published ones, so a published name is ours without `encoder.`:

    encoder.blocks.0.attn.qkv.weight   <->   blocks.0.attn.qkv.weight
    decoder_blocks.0.norm1.bias        <->   decoder_blocks.0.norm1.bias
"""

from collections.abc import Mapping

from torch import Tensor

from mimlib.weights.files import strip


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the names; which of them are the encoder's is known to whoever takes them."""
    return dict(state)


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state of an MAE or of a ViT."""
    return strip("encoder.", state)
