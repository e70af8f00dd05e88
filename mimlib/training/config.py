"""What a training run is told: one frozen dataclass, checked when it is made."""

import os
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

import torch

from mimlib.checks import check_choice, check_range
from mimlib.training.schedules import SCHEDULES, scheduled

Precision = Literal["auto", "float32", "bfloat16"]

IMAGES_PER_BASE_RATE = 256  # the linear scaling rule of MAE appendix A: rate = base * images / 256

# A resumed run may change these: they alter neither the numbers drawn nor the rates.
FREE_ON_RESUME = frozenset(
    {"log_every", "save_every", "evaluate_every", "keep", "device", "threads", "compile", "profile"}
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how fast, how often; defaults are the pre-training recipe of MAE, table 8."""

    steps: int  # optimiser steps of the whole run
    batch_size: int  # images per optimiser step and rank, all micro-batches together
    accumulation: int = 1  # micro-batches that one step is cut into; divides batch_size
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of blocks
    base_rate: float = 1.5e-4  # learning rate per 256 images of a step over all ranks
    warmup_steps: int = 0  # steps of linear warm-up from 0
    schedule: Literal["cosine", "linear", "whole_cosine"] = "cosine"  # how the rate falls
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
        counts = ("steps", "batch_size", "accumulation", "log_every", "keep")
        check_range(self, *counts, least=1, below=inf)
        check_range(self, "base_rate", above=0, below=inf)
        amounts = ("min_rate", "weight_decay", "final_weight_decay", "clip_norm", "seed", "threads")
        check_range(self, *amounts, "save_every", "evaluate_every", least=0, below=inf)
        check_range(self, "betas", least=0, below=1)
        check_range(self, "layer_decay", above=0, most=1)
        check_choice(self, "schedule", SCHEDULES)
        check_choice(self, "precision", get_args(Precision))
        check_choice(self, "optimizer", ("adamw", "muon"))
        hint = f"the run has {self.steps} steps, change both together"
        check_range(self, "warmup_steps", least=0, most=self.steps, hint=hint)
        if self.schedule_steps:
            check_range(self, "schedule_steps", least=self.steps, below=inf, hint=f"or 0: {hint}")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into accumulation "
                f"{self.accumulation} equal parts; choose a divisor"
            )

    def peak_rate(self, num_ranks: int) -> float:
        """Return the highest learning rate: the base rate times images per step over 256."""
        return self.base_rate * self.batch_size * num_ranks / IMAGES_PER_BASE_RATE

    def rate(self, step: int, num_ranks: int) -> float:
        """Return the learning rate of a step, before layer decay."""
        length, peak = self.schedule_steps or self.steps, self.peak_rate(num_ranks)
        return scheduled(step, length, peak, self.warmup_steps, self.min_rate, self.schedule)

    def decay(self, step: int) -> float:
        """Return the weight decay of a step."""
        length, end = self.schedule_steps or self.steps, self.final_weight_decay
        return scheduled(step, length, self.weight_decay, minimum=end or self.weight_decay)


def pick_device(name: str = "auto") -> torch.device:
    """Turn a device name into a device that exists here; ValueError if there is no such one.

    Names are auto (a GPU if there is one), cpu, cuda, cuda:<index> and mps. Under torchrun each
    process takes the GPU of its LOCAL_RANK.
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
