"""What a training step costs on this machine: `python -m mimlib bench`.

FLOPs and saved bytes are counts: they depend on the code alone, and tests hold them. Images per
second are measured here and now, so compare them only within one run on a quiet machine. MFU is
relative to the fastest matrix product of the same device and number type, and to the minimal
FLOPs, so that work done for nothing cannot raise it.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from mimlib import world
from mimlib.data.batches import ImageBatch, PairBatch
from mimlib.decoders.pair import PairDecoderConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.machine.formulas import Config, decoder_cost, minimal_flops
from mimlib.methods.convmae import ConvMAE, ConvMAEConfig
from mimlib.methods.croco import CroCo, CroCoConfig
from mimlib.methods.mae import MAE, MAEConfig
from mimlib.methods.objectives.distillation import DistillationConfig
from mimlib.methods.selfpatch import SelfPatch, SelfPatchConfig
from mimlib.methods.siamese import MultiCropConfig
from mimlib.presets import preset
from mimlib.presets.scales import CONV_LESSON
from mimlib.training.config import TrainConfig
from mimlib.training.optimizer import build_optimizer
from mimlib.training.precision import numeric_mode, resolve_precision
from mimlib.training.profile import count_flops, matmul_rate, saved_bytes

PAPERS = {
    "MAE ViT-B/16": "mae_vitb16_in1k",
    "ConvMAE-B": "convmae_vitb16_in1k",
    "CroCo ViT-B/16": "croco_vitb16_habitat",
    "SelfPatch ViT-S/16": "selfpatch_vits16_in1k",
}
RATIOS = (0.25, 0.5, 0.75, 0.9)
WORLD_SIZE = 64  # pixels
LARGE = 20e9  # operations per image
SECONDS = 10.0  # per timed model; a tenth of it when quick
COLUMNS = ((11, 3), (7, 3), (15, 2), (9, 1), (5, 3))  # of the numbers of a row: width, digits

Method = MAE | ConvMAE | CroCo | SelfPatch
__all__ = ["bench", "decoder_cost", "minimal_flops", "models"]


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
    small_pair = replace(small, class_token=False, rotary=True)
    decoder = PairDecoderConfig(width=64, depth=2, heads=4)
    plain = {"decoder_width": 64, "decoder_depth": 2, "decoder_heads": 4}
    small_head = DistillationConfig(prototypes=1024, hidden=256, bottleneck=64)
    return {
        "MAE notebook size": MAEConfig(encoder=small, **plain),
        "ConvMAE notebook size": ConvMAEConfig(encoder=CONV_LESSON, **plain),
        "CroCo notebook size": CroCoConfig(encoder=small_pair, decoder=decoder),
        "SelfPatch notebook size": SelfPatchConfig(
            encoder=replace(small, class_token=False, learned_positions=True),
            crops=MultiCropConfig(global_size=32, local_size=16, num_local=4, blur=(0.1, 0.5)),
            image=small_head,
            patches=replace(small_head, prototypes=256),
        ),
        **{title: preset(name).method for title, name in PAPERS.items()},
    }


def bench(device: torch.device, quick: bool = False) -> Iterator[Row]:
    """Measure all, yielding rows as they are done; `quick`: smaller, in a tenth of the time."""
    seconds = SECONDS / 10 if quick else SECONDS
    with numeric_mode(device):
        for name, config in models().items():
            is_slow = device.type == "cpu" and minimal_flops(config) > LARGE
            batch = (2 if quick else 16) if is_slow else (64 if quick else 256)
            yield measure(name, config, batch, device, seconds)
            for ratio in RATIOS if name in ("MAE notebook size", "ConvMAE notebook size") else ():
                masked = replace(config, mask_ratio=ratio)
                yield measure(f"  hiding {ratio:.0%}", masked, batch, device, seconds / 4)
        count = 16 if quick else 256
        (taken,) = times_of(lambda: world.views(count, WORLD_SIZE, cache=False), seconds=0)
        yield Row(f"world views, {WORLD_SIZE} px", count, images_per_second=count / taken)


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
    """Time training steps (views, forward, backward, AdamW, teacher) for so many seconds."""
    optimizer = build_optimizer(method, TrainConfig(steps=1, batch_size=batch))

    def step() -> None:
        views = draw(method, batch, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            output = method(views)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            method.after_step(output.state, progress=0.5)
        output.loss.item()  # waits for the device

    step()
    return statistics.median(times_of(step, seconds))


def times_of(work: Callable[[], object], seconds: float) -> list[float]:
    """Time calls, at least one, until they have taken so many seconds."""
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def draw(method: Method, batch: int, device: torch.device) -> tuple:
    """Draw views of noise images made on the device."""
    side = method.config.encoder.image_size
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randint(
        256, (batch, 3, side, side), dtype=torch.uint8, device=device, generator=generator
    )
    noise = PairBatch(images, images) if isinstance(method, CroCo) else ImageBatch(images)
    return method.sample_views(noise, generator)


def report(device: torch.device, quick: bool = False) -> None:
    """Print the report line by line; arguments as of `bench`."""
    dtype = str(resolve_precision("auto", device)).removeprefix("torch.")
    print(f"torch {torch.__version__}, {device}, {dtype}, {torch.get_num_threads()} CPU threads")
    print(f"{'':22}  batch  GFLOP/image  minimal  saved MiB/image   images/s    MFU")
    for row in bench(device, quick):
        print(format_row(row), flush=True)


def format_row(row: Row) -> str:
    """Lay one row out in columns."""
    cells = [
        "-".rjust(width) if math.isnan(value) else f"{value:{width}.{digits}f}"
        for value, (width, digits) in zip(row[2:], COLUMNS)
    ]
    return f"{row.name:22}  {row.batch:>5}  " + "  ".join(cells)
