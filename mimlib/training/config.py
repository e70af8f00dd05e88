"""What a training run is told: one frozen dataclass, checked when it is made."""

import math
import os
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from mimlib.training.schedules import SCHEDULES, warmup_cosine

Precision = Literal["auto", "float32", "bfloat16"]

IMAGES_PER_BASE_RATE = 256  # the linear scaling rule of MAE appendix A: rate = base * images / 256

# A resumed run may change these: they alter neither the numbers drawn nor the rates.
FREE_ON_RESUME = frozenset(
    {
        "log_every",
        "save_every",
        "evaluate_every",
        "keep",
        "device",
        "threads",
        "compile",
        "profile",
    }
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how fast, how often; defaults are the pre-training recipe of MAE, table 8."""

    steps: int  # optimiser steps of the whole run
    batch_size: int  # images per optimiser step and rank, all micro-batches together
    accumulation: int = 1  # micro-batches that one step is cut into; divides batch_size
    base_rate: float = 1.5e-4  # learning rate per 256 images of a step over all ranks
    warmup_steps: int = 0  # steps of linear warm-up from 0
    schedule: Literal["cosine", "linear"] = "cosine"  # how the rate falls after the warm-up
    schedule_steps: int = 0  # steps the fall is laid out for, if more than are run; 0 = steps
    min_rate: float = 0.0  # learning rate at the end of the fall
    weight_decay: float = 0.05  # decoupled (AdamW), not for 1-D tensors and biases
    final_weight_decay: float = 0.0  # at the end, along half a cosine (DINO); 0 = it stays
    no_decay: tuple[str, ...] = ()  # more names without decay; fine-tuning: class token, positions
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW moments; fine-tuning uses (0.9, 0.999)
    layer_decay: float = 1.0  # factor on the rate per encoder layer below the head; 1 = off
    clip_norm: float = 0.0  # largest global gradient norm; 0 = off
    clip_each: bool = False  # the largest norm is that of each tensor by itself (DINO)
    precision: Precision = "auto"  # auto: bfloat16 where the processor computes in it
    shard: bool = False  # several ranks hold parts of the weights (FSDP2), not copies (DDP)
    compile: bool = False  # torch.compile; costs half a minute, pays after thousands of steps
    seed: int = 0  # of every draw in the run, with rank and step
    device: str = "auto"  # auto, cpu, cuda, cuda:<index> or mps
    threads: int = 0  # CPU threads inside an operation; 0 = leave as it is
    log_every: int = 10  # steps between log lines; the first and the last step always log
    save_every: int = 0  # steps between checkpoints; 0 = only at the end
    evaluate_every: int = 0  # steps between evaluations; 0 = only at the end
    keep: int = 2  # checkpoints kept, newest first
    profile: bool = False  # write a trace of a few steps and a table of the slowest kernels

    def __post_init__(self) -> None:
        at_least = {
            "steps": 1,
            "batch_size": 1,
            "accumulation": 1,
            "warmup_steps": 0,
            "schedule_steps": 0,
            "min_rate": 0,
            "weight_decay": 0,
            "final_weight_decay": 0,
            "clip_norm": 0,
            "seed": 0,
            "threads": 0,
            "log_every": 1,
            "save_every": 0,
            "evaluate_every": 0,
            "keep": 1,
        }
        for name, smallest in at_least.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= smallest):
                raise ValueError(f"{name} is {value}; expected a number of {smallest} or more")
        if not 0 < self.base_rate < math.inf:
            raise ValueError(f"base_rate is {self.base_rate}; expected a positive number")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into accumulation "
                f"{self.accumulation} equal parts; choose a divisor"
            )
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}; expected at most steps = "
                f"{self.steps}; set both together"
            )
        if 0 < self.schedule_steps < self.steps:
            raise ValueError(
                f"schedule_steps is {self.schedule_steps}, but the run has {self.steps} steps; "
                "choose as many or more, or 0"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}; expected two numbers in [0, 1)")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is {self.layer_decay}; expected a number in (0, 1]")
        for name, known in (("precision", get_args(Precision)), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                names = ", ".join(known)
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {names}")

    def peak_rate(self, num_ranks: int) -> float:
        """Return the highest learning rate: the base rate times images per step over 256."""
        return self.base_rate * self.batch_size * num_ranks / IMAGES_PER_BASE_RATE

    def rate(self, step: int, num_ranks: int) -> float:
        """Return the learning rate of a step, before layer decay."""
        length, peak = self.schedule_steps or self.steps, self.peak_rate(num_ranks)
        return SCHEDULES[self.schedule](step, length, peak, self.warmup_steps, self.min_rate)

    def decay(self, step: int) -> float:
        """Return the weight decay of a step."""
        length, end = self.schedule_steps or self.steps, self.final_weight_decay
        return warmup_cosine(step, length, self.weight_decay, minimum=end or self.weight_decay)


def pick_device(name: str = "auto") -> torch.device:
    """Turn a device name into a device that exists here.

    Under torchrun each process takes the GPU of its LOCAL_RANK.

    Args:
        name: auto (a GPU if there is one), cpu, cuda, cuda:<index> or mps.

    Raises:
        ValueError: if the name is unknown or this machine has no such device.
    """
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device is {name!r}; expected auto, cpu, cuda, cuda:<index> or mps")
    if device.type == "mps" and not has_mps:
        raise ValueError("device is 'mps', but this machine has no Apple GPU; use auto or cpu")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
        if index >= count:
            raise ValueError(
                f"device is {name!r} number {index}, but torch {torch.__version__} sees {count} "
                "GPUs; use auto or cpu, start fewer processes, or install a torch for this GPU"
            )
        device = torch.device("cuda", index)
    return device
