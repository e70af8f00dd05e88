"""Batches on their way from a source to the device."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from mimlib.protocol import Source
from mimlib.training.config import TrainConfig
from mimlib.training.parallel import Ranks

READ_AHEAD = 2  # batches waiting while a GPU computes


def mean_of(
    maps: Sequence[Mapping[str, Tensor]], weights: Sequence[Tensor] = ()
) -> dict[str, Tensor]:
    """Average tensors of equal names, by weight if there are any; one map alone stays as it is."""
    if len(maps) == 1:
        return dict(maps[0])
    stacks = {name: torch.stack([each[name] for each in maps]) for name in maps[0]}
    if not weights:
        return {name: stack.mean(0) for name, stack in stacks.items()}
    shares = torch.stack([*weights]).float()
    shares = shares / shares.sum().clamp(min=torch.finfo(shares.dtype).tiny)
    return {name: torch.tensordot(shares, stack, 1) for name, stack in stacks.items()}


class StepDraws:
    """The random numbers of a step, a pure function of (seed, rank, step, micro-step).

    Resuming therefore stores the step, not the state of any generator.
    """

    def __init__(self, seed: int, rank: int, device: torch.device):
        self.seed, self.rank, self.device = seed, rank, device
        self.generator = torch.Generator(device)

    def start(self, step: int, micro_step: int) -> torch.Generator:
        """Return the generator for the views, and seed torch's own for dropout in `forward`."""
        entropy = (self.seed, self.rank, step, micro_step)
        views, inside = np.random.SeedSequence(entropy).generate_state(2, np.uint64)
        # torch.manual_seed would seed every kind of device, which takes a millisecond.
        torch.default_generator.manual_seed(int(inside))
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):  # which need not be the current one
                torch.cuda.manual_seed(int(inside))
        elif self.device.type == "mps":
            torch.mps.manual_seed(int(inside))
        return self.generator.manual_seed(int(views))


def micro_batches(batch: NamedTuple, count: int) -> Iterator[NamedTuple]:
    """Split a batch into `count` equal ones along the first axis."""
    for index in range(count):
        yield tree_map_only(Tensor, lambda tensor: tensor.chunk(count)[index], batch)  # noqa: B023


@contextmanager
def open_batches(
    source: Source, config: TrainConfig, start: int, ranks: Ranks, device: torch.device
) -> Iterator[Iterator[NamedTuple]]:
    """Open a source at a step; for a GPU, a thread reads while it computes.

    On a CPU reading ahead only takes cores away from the model.
    """
    batches = source.batches(start, config.batch_size, config.seed, *ranks)
    checked = check_sizes(batches, start, config.batch_size)
    with closing(checked if device.type == "cpu" else read_ahead(checked)) as opened:
        yield opened


def check_sizes(batches: Iterator[NamedTuple], start: int, batch_size: int) -> Iterator[NamedTuple]:
    """Pass batches on; raise ValueError where the source ends or a batch has another size."""
    step = start - 1
    for step, batch in enumerate(batches, start):
        size = len(batch[0])
        if size != batch_size:
            raise ValueError(f"batch {step} has {size} images; expected batch_size = {batch_size}")
        yield batch
    raise ValueError(f"the source ended before batch {step + 1}; sources must yield without end")


def read_ahead(batches: Iterator[NamedTuple]) -> Iterator[NamedTuple]:
    """Yield the same batches in the same order, fetched by a thread into pinned memory."""
    queue: Queue = Queue(maxsize=READ_AHEAD)
    closed = Event()

    def offer(item: Any) -> None:
        while not closed.is_set():
            try:
                return queue.put(item, timeout=0.1)
            except Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                if closed.is_set():
                    return
                pin = torch.cuda.is_available()
                offer((tree_map_only(Tensor, Tensor.pin_memory, batch) if pin else batch, None))
        except BaseException as error:  # noqa: BLE001, handed to the trainer
            offer((None, error))

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            batch, error = queue.get()
            if error is not None:
                raise error
            yield batch
    finally:
        closed.set()
        thread.join(timeout=5)
