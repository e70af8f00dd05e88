"""What a run is and costs, worked out without training it: `python -m mimlib show NAME`."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mimlib.presets.run import Preset, Run
from mimlib.protocol import Encoder, Output, Trainable
from mimlib.training.profile import count_flops, saved_bytes

BYTES_PER_PARAMETER = 16  # float32 weight, gradient and two moments of AdamW


class ExampleBatch(NamedTuple):
    """Blank images with every kind of target, so that any method or task can take it."""

    images: Tensor  # [B, 3, H, W] uint8
    image_1: Tensor  # the same, for methods that take pairs
    image_2: Tensor
    labels: Tensor  # [B] int64
    target: Tensor  # [B, H, W] float32
    valid: Tensor  # [B, H, W] bool


class _EncoderAlone(nn.Module):
    """What is counted of a task that cannot run on shapes alone: its views are images."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Output:
        """Encode the images."""
        return Output(loss=self.encoder(images).tokens.float().mean(), terms={})


def example_batch(run: Run, batch_size: int = 2, channels: tuple[int, ...] = ()) -> ExampleBatch:
    """Make a blank batch of the run's image size; stereo and flow have channels in their target."""
    size = run.data.size if isinstance(run.data.size, tuple) else (run.data.size, run.data.size)
    images = torch.zeros(batch_size, 3, *size, dtype=torch.uint8)
    return ExampleBatch(
        images=images,
        image_1=images,
        image_2=images,
        labels=torch.zeros(batch_size, dtype=torch.int64),
        target=torch.ones(batch_size, *size, *channels),
        valid=torch.ones(batch_size, *size, dtype=torch.bool),
    )


def example_views(method: Trainable, run: Run, batch_size: int = 2) -> NamedTuple:
    """Draw views of a blank batch."""
    channels = (method.channels,) if getattr(method, "channels", 0) else ()
    generator = torch.Generator().manual_seed(0)
    return method.sample_views(example_batch(run, batch_size, channels), generator)


def parameter_counts(method: Trainable) -> Counter[str]:
    """Count the parameters of every part of a method, trainable or not."""
    counts: Counter[str] = Counter()
    for name, parameter in method.named_parameters():
        counts[name.split(".")[0]] += parameter.numel()
    return counts


def _costs(method: Trainable, run: Run) -> tuple[float, float]:
    """Count training FLOPs and saved activation bytes of one image, on the meta device.

    Of a task whose work depends on what it sees, those of its encoder.
    """
    if getattr(method, "runs_on_shapes", True):
        views = example_views(method, run)
    else:
        method, views = _EncoderAlone(method.encoder), example_batch(run).images.float()
    views = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), views)
    return count_flops(method, views) / 2, saved_bytes(method, views) / 2


def describe(run: Run, num_ranks: int = 1) -> str:
    """Resolve a run: config, parameters per part, FLOPs, memory, batch and rates."""
    with torch.device("meta"):
        method = run.method.build()
    train, counts = run.train, parameter_counts(method)
    flops, activations = _costs(method, run)
    total = counts.total()
    peak = train.peak_rate(num_ranks)
    images = train.steps * train.batch_size * num_ranks
    part = "" if getattr(method, "runs_on_shapes", True) else ", of the encoder alone"
    memory = total * BYTES_PER_PARAMETER + activations * train.batch_size / train.accumulation
    lines = [
        *_config_lines(run),
        "",
        *(f"{count:>15,}  parameters in {part}" for part, count in counts.items()),
        f"{total:>15,}  parameters in all",
        f"{flops / 1e9:>15.2f}  GFLOP per image, forward and backward{part}",
        f"{flops * images / 1e15:>15.2f}  PFLOP for {images:,} images{part}",
        f"{activations / 2**20:>15.1f}  MiB of saved activations per image in float32{part}",
        f"{memory / 2**30:>15.2f}  GiB of weights, optimizer and activations{part}",
        f"{train.batch_size * num_ranks:>15,}  images per step"
        f" ({num_ranks} process(es), {train.accumulation} micro-batch(es) each)",
        f"{peak:>15.2e}  peak learning rate after {train.warmup_steps:,} steps,"
        f" {train.rate(train.steps, num_ranks):.1e} at the end",
    ]
    return "\n".join(lines)


def _config_lines(config: object, indent: str = "") -> Iterable[str]:
    """Write a tree of dataclasses as indented lines."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        named = {field.name: value}
        if isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
            named = {f"{field.name}.{i}": item for i, item in enumerate(value)}
        for name, item in named.items():
            if dataclasses.is_dataclass(item):
                yield f"{indent}{name}: {type(item).__name__}"
                yield from _config_lines(item, indent + "  ")
            else:
                yield f"{indent}{name}: {item!r}"


def table(presets: Mapping[str, Preset]) -> str:
    """List presets with their method, data, parameters and steps, and what their cards begin with.

    Parameters are those beside the preset, which a test counts.
    """
    rows = [("preset", "method", "data", "parameters", "steps", "images per process", "what it is")]
    for name, row in presets.items():
        kinds = (type(each).__name__.removesuffix("Config") for each in (row.method, row.data))
        images = row.train.steps * row.train.batch_size
        numbers = (f"{number:,}" for number in (row.parameters, row.train.steps, images))
        rows.append((name, *kinds, *numbers, row.card.splitlines()[0]))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        words = [cell.ljust(width) for cell, width in zip(row[:3], widths)]
        numbers = [cell.rjust(width) for cell, width in zip(row[3:6], widths[3:])]
        lines.append("  ".join([*words, *numbers, row[6]]))
    return "\n".join(lines)
