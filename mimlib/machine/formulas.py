"""What a training step cannot leave out, by formula: two operations per multiply-add.

With K tokens of width D a block multiplies 12 K D^2 (queries, keys, values, output, MLP) and 2
K^2 D (logits, mixing) times. A backward pass costs twice its forward pass, but pixels need no
gradient. Sums of elementwise products (class attention, likeness of neighbours, losses) are not
counted: they are no products of matrices, and few.
"""

import torch

from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.methods.convmae import ConvMAEConfig
from mimlib.methods.croco import CroCoConfig
from mimlib.methods.mae import MAEConfig
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatchConfig

MaskedConfig = MAEConfig | ConvMAEConfig | CroCoConfig
Config = MaskedConfig | SelfPatchConfig
NUM_TARGETS = 2  # crops of which the teacher says everything


def minimal_flops(config: Config) -> int:
    """Count per image, or per pair of images, forward and backward."""
    if isinstance(config, SelfPatchConfig):
        return 2 * _selfpatch_products(config)
    is_hybrid = isinstance(config.encoder, ConvViTConfig)
    embed, encode = (_convvit_products if is_hybrid else _vit_products)(config)
    return 2 * (2 * embed + 3 * (encode + _decoder_products(config)))


def _vit_products(config: MAEConfig | CroCoConfig) -> tuple[int, int]:
    """Count the multiplications of pixels, and the others, of a ViT for what is not hidden."""
    encoder = config.encoder
    seen, memory = _encoded_tokens(config)
    patches = config.num_visible + memory
    embed = patches * 3 * encoder.patch_size**2 * encoder.width
    encode = sum(
        encoder.depth * (12 * k * encoder.width**2 + 2 * k**2 * encoder.width)
        for k in (seen, memory)
    )
    return embed, encode


def _convvit_products(config: ConvMAEConfig) -> tuple[int, int]:
    """Count the same of a ConvViT and of the fusion of its stages.

    Where a cell has T positions of width C a block of convolutions multiplies (2 + 2 r) T C^2
    (conv1, conv2, MLP of ratio r) and k^2 T C (depthwise) times, of hidden cells nothing.
    """
    encoder, cells = config.encoder, config.num_visible
    width, before, encode = encoder.width, 3, 0
    for stage, (a, b) in enumerate(encoder.layouts):
        positions, channels = cells * (a * b) ** 2, encoder.widths[stage]
        ratio, depth = encoder.mlp_ratios[stage], encoder.depths[stage]
        enter = positions * encoder.entries[stage] ** 2 * before * channels
        if stage == 0:
            embed = enter
        else:
            encode += enter
        if stage < 2:
            block = (2 + 2 * ratio) * channels**2 + encoder.kernel**2 * channels
            encode += depth * positions * block
            encode += positions * channels * width if config.multi_scale else 0
        else:
            block = (4 + 2 * ratio) * cells * width**2 + 2 * cells**2 * width
            encode += cells * width**2 + depth * block
        before = channels
    return embed, encode


def _decoder_products(config: MaskedConfig) -> int:
    """Count the multiplications of a decoder, whose last block answers for masked patches only.

    Looking at R more tokens takes 2 K D^2 + 2 R D^2 (queries and output, keys and values) and
    2 K R D multiplications beside those of a plain block.
    """
    encoder, pair = config.encoder, getattr(config, "decoder", None)
    width = pair.width if pair else config.decoder_width
    depth = pair.depth if pair else config.decoder_depth
    hidden, full = config.num_masked, config.num_patches + encoder.class_token
    seen, memory = _encoded_tokens(config)
    products = (seen + memory) * encoder.width * width  # the way in
    joined = full + memory if pair and pair.kind == "cat" else full  # what a block attends to
    for answers in [joined] * (depth - 1) + [hidden]:
        products += (2 * joined + 10 * answers) * width**2 + 2 * answers * joined * width
        if pair and pair.kind == "cross":
            products += 2 * (memory + answers) * width**2 + 2 * answers * memory * width
    return products + hidden * width * 3 * encoder.patch_size**2


def _encoded_tokens(config: MaskedConfig) -> tuple[int, int]:
    """Return how many tokens of the masked image are encoded, and of the second one, if any."""
    full = config.num_patches + config.encoder.class_token
    return full - config.num_masked, full if isinstance(config, CroCoConfig) else 0


def _selfpatch_products(config: SelfPatchConfig) -> int:
    """Count all multiplications of a SelfPatch on a ViT, of student and teacher.

    The student learns from every crop. The teacher looks at every crop, but says of two of them
    only what images it takes them for: the centre needs no more than the mean of the others.
    """
    encoder, crops = config.encoder, config.crops
    width, pixels = encoder.width, 3 * encoder.patch_size**2
    embed = student = teacher = 0
    sides = zip(crops.sizes, (NUM_TARGETS, crops.num_local))
    for tokens, count in (((side // encoder.patch_size) ** 2, count) for side, count in sides):
        embed += count * tokens * pixels * width
        blocks = encoder.depth * (12 * tokens * width**2 + 2 * tokens**2 * width)
        show = 2 * tokens * config.aggregator_depth * width**2  # keys and values, once per token
        both = blocks + show + tokens * _head_products(config.patches, width)
        student += count * (both + _summary_products(config))
        teacher += count * (both + (1 + tokens) * _summary_products(config))
    image = crops.num_crops * _head_products(config.image, width)
    student += image
    teacher += image - crops.num_local * config.image.bottleneck * config.image.prototypes
    return 2 * embed + 3 * student + embed + teacher


def _summary_products(config: SelfPatchConfig) -> int:
    """Count for one summary: query, itself, output, MLP; the first query is the same for all."""
    return (12 * config.aggregator_depth - 3) * config.encoder.width**2


def _head_products(config: DistillationConfig, width: int) -> int:
    hidden, bottleneck = config.hidden, config.bottleneck
    return width * hidden + hidden**2 + hidden * bottleneck + bottleneck * config.prototypes


def decoder_cost(config: PairDecoderConfig, encoder: ViTConfig) -> tuple[int, int]:
    """Count the parameters of a pair decoder's blocks, and their FLOPs for one pair, forward.

    All tokens of the last block are computed, as the paper counts.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    with torch.device("meta"):
        decoder = config.build(encoder)
        tokens = torch.empty(1, encoder.num_patches, config.width)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            decoder(tokens, tokens, encoder.grid)
    parameters = sum(parameter.numel() for parameter in decoder.blocks.parameters())
    return parameters, counter.get_total_flops()
