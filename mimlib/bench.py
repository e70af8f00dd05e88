"""What a training step costs on this machine: `python -m mimlib bench`.

FLOPs and saved bytes are counts: they depend on the code alone, and tests hold them. Images per
second are measured here and now, so compare them only within one run on a quiet machine. MFU is
relative to the fastest matrix product of the same device and number type, and to the minimal
FLOPs, so that work done for nothing cannot raise it.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from mimlib import world
from mimlib.data.batches import ImageBatch, PairBatch
from mimlib.encoders.convvit import ConvViTConfig, convvit_config
from mimlib.encoders.pair import PairDecoderConfig
from mimlib.encoders.vit import ViTConfig, vit_config
from mimlib.methods.convmae import ConvMAE, ConvMAEConfig
from mimlib.methods.croco import CroCo, CroCoConfig
from mimlib.methods.mae import MAE, MAEConfig
from mimlib.presets.scales import CONV_LESSON
from mimlib.training.config import TrainConfig, pick_device
from mimlib.training.optimizer import build_optimizer
from mimlib.training.precision import numeric_mode, resolve_precision
from mimlib.training.profile import count_flops, matmul_rate, saved_bytes

RATIOS = (0.25, 0.5, 0.75, 0.9)
WORLD_SIZE = 64  # pixels
SECONDS = 10.0  # per timed model; a tenth of it when quick

Config = MAEConfig | ConvMAEConfig | CroCoConfig
Method = MAE | ConvMAE | CroCo


class Row(NamedTuple):
    """One line of the report; nan where a number has no meaning."""

    name: str
    batch: int  # images (of CroCo: pairs) per step, or views per call
    gflops: float = math.nan  # counted, per image or pair, forward and backward
    minimal_gflops: float = math.nan  # by formula, per image or pair, forward and backward
    saved_mib: float = math.nan  # kept for the backward pass, per image or pair
    images_per_second: float = math.nan  # median over steps
    mfu: float = math.nan  # minimal FLOPs per second over the rate of a large matrix product


def models() -> dict[str, Config]:
    """Return what is measured: of every method the size of a notebook and the papers' base."""
    small = ViTConfig(width=128, depth=4, heads=4, patch_size=4, image_size=32)
    base = vit_config("B", patch_size=16, image_size=224)
    small_pair = replace(small, class_token=False, rotary=True)
    decoder = PairDecoderConfig(width=64, depth=2, heads=4)
    return {
        "MAE notebook size": MAEConfig(
            encoder=small, decoder_width=64, decoder_depth=2, decoder_heads=4
        ),
        "ConvMAE notebook size": ConvMAEConfig(
            encoder=CONV_LESSON, decoder_width=64, decoder_depth=2, decoder_heads=4
        ),
        "CroCo notebook size": CroCoConfig(encoder=small_pair, decoder=decoder),
        "MAE ViT-B/16": MAEConfig(encoder=base),
        "ConvMAE-B": ConvMAEConfig(encoder=convvit_config("B", image_size=224)),
        "CroCo ViT-B/16": CroCoConfig(encoder=replace(base, class_token=False)),
    }


def bench(device: torch.device, quick: bool = False) -> Iterator[Row]:
    """Measure everything, yielding rows as they are done.

    Args:
        device: where to measure.
        quick: smaller batches and a tenth of the time; for trying out.
    """
    seconds = SECONDS / 10 if quick else SECONDS
    with numeric_mode(device):
        for name, config in models().items():
            batch = batch_size(config, device, quick)
            yield measure(name, config, batch, device, seconds)
            for ratio in RATIOS if name in ("MAE notebook size", "ConvMAE notebook size") else ():
                masked = replace(config, mask_ratio=ratio)
                yield measure(f"  hiding {ratio:.0%}", masked, batch, device, seconds / 4)
        count = 16 if quick else 256
        rate = count / seconds_of(lambda: world.views(count, WORLD_SIZE, cache=False))
        yield Row(f"world views, {WORLD_SIZE} px", count, images_per_second=rate)


def batch_size(config: Config, device: torch.device, quick: bool) -> int:
    """Choose how many images (pairs) to time at once: ViT-B has room for few on a CPU."""
    if device.type == "cpu" and config.encoder.width > 512:
        return 2 if quick else 16
    return 64 if quick else 256


def measure(name: str, config: Config, batch: int, device: torch.device, seconds: float) -> Row:
    """Count and time one training step."""
    method = config.build().to(device)
    dtype = resolve_precision("auto", device)
    counted = count_flops(method, draw(method, 2, device)) / 2
    minimal = minimal_flops(config)
    saved = saved_per_image(method, device, dtype)
    rate = batch / seconds_per_step(method, batch, device, dtype, seconds)
    best = matmul_rate(device, dtype, torch.get_num_threads())
    return Row(
        name, batch, counted / 1e9, minimal / 1e9, saved / 2**20, rate, minimal * rate / best
    )


def minimal_flops(config: Config) -> int:
    """Count by formula what no implementation can leave out, two per multiply-add.

    Per image, or per pair of images, forward and backward. A backward pass costs twice its forward
    pass, but pixels need no gradient.
    """
    is_hybrid = isinstance(config.encoder, ConvViTConfig)
    embed, encode = (_convvit_products if is_hybrid else _vit_products)(config)
    return 2 * (2 * embed + 3 * (encode + _decoder_products(config)))


def _vit_products(config: MAEConfig | CroCoConfig) -> tuple[int, int]:
    """Count the multiplications of pixels, and the others, of a ViT for what is not hidden.

    With K tokens of width D a block multiplies 12 K D^2 (queries, keys, values, output, MLP) and
    2 K^2 D (logits, mixing) times.
    """
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


def _decoder_products(config: Config) -> int:
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


def _encoded_tokens(config: Config) -> tuple[int, int]:
    """Return how many tokens of the masked image are encoded, and of the second one, if any."""
    full = config.num_patches + config.encoder.class_token
    return full - config.num_masked, full if isinstance(config, CroCoConfig) else 0


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


def saved_per_image(method: Method, device: torch.device, dtype: torch.dtype) -> float:
    """Count the bytes one more image or pair keeps for the backward pass."""
    counts = []
    for batch in (1, 2):
        views = draw(method, batch, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            counts.append(saved_bytes(method, views))
    return counts[1] - counts[0]


def seconds_per_step(
    method: Method, batch: int, device: torch.device, dtype: torch.dtype, seconds: float
) -> float:
    """Time training steps (views, forward, backward, AdamW) for about so many seconds."""
    optimizer = build_optimizer(method, TrainConfig(steps=1, batch_size=batch))

    def step() -> None:
        views = draw(method, batch, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = method(views).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device

    step()
    times = [seconds_of(step)]
    while sum(times) < seconds:
        times.append(seconds_of(step))
    return statistics.median(times)


def seconds_of(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def draw(method: Method, batch: int, device: torch.device) -> tuple:
    """Draw views of noise images made on the device."""
    side = method.config.encoder.image_size
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randint(
        256, (batch, 3, side, side), dtype=torch.uint8, device=device, generator=generator
    )
    noise = PairBatch(images, images) if isinstance(method, CroCo) else ImageBatch(images)
    return method.sample_views(noise, generator)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `python -m mimlib bench`."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--quick", action="store_true", help="seconds in place of a minute")


def main(arguments: argparse.Namespace) -> None:
    """Print the report line by line."""
    device = pick_device(arguments.device)
    dtype = str(resolve_precision("auto", device)).removeprefix("torch.")
    print(f"torch {torch.__version__}, {device}, {dtype}, {torch.get_num_threads()} CPU threads")
    print(f"{'':22}  batch  GFLOP/image  minimal  saved MiB/image   images/s    MFU")
    for row in bench(device, arguments.quick):
        print(format_row(row), flush=True)


def format_row(row: Row) -> str:
    """Lay one row out in columns."""
    widths = {"gflops": "11.3f", "minimal_gflops": "7.3f", "saved_mib": "15.2f",
              "images_per_second": "9.1f", "mfu": "5.3f"}  # fmt: skip
    cells = [
        "-".rjust(int(width.split(".")[0])) if math.isnan(getattr(row, name))
        else format(getattr(row, name), width)
        for name, width in widths.items()
    ]  # fmt: skip
    return f"{row.name:22}  {row.batch:>5}  " + "  ".join(cells)
