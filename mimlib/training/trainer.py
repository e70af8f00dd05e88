"""The trainer, in the order of events: one process as written, many under torchrun.

restore -> for step: set rates -> train_step -> after_step -> log -> evaluate -> save
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from mimlib import __version__
from mimlib.protocol import Evaluation, Output, Source, Trainable
from mimlib.training import optimizer as optim
from mimlib.training import parallel
from mimlib.training.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    prepare_folder,
    save_checkpoint,
)
from mimlib.training.config import TrainConfig, pick_device
from mimlib.training.log import Log, Meter, Summary
from mimlib.training.precision import all_finite, check_threads, numeric_mode, resolve_precision
from mimlib.training.profile import count_flops, matmul_rate, trace
from mimlib.training.reading import StepDraws, mean_of, micro_batches, open_batches
from mimlib.training.resume import check_same_run, describe_run, newest_good
from mimlib.training.schedules import is_due
from mimlib.training.signals import StopSignal

NEVER = 2**62  # no step is that late


class Trainer:
    """Trains any `Trainable` on any `Source`: pre-training methods and downstream tasks alike."""

    def __init__(
        self,
        method: Trainable,
        source: Source,
        config: TrainConfig,
        evaluations: Sequence[Evaluation] = (),
        out: Path | str | None = None,
        run_info: Mapping[str, Any] | None = None,
        progress: bool = True,
    ):
        """Move the method to its device and build the optimiser.

        Args:
            method: what is trained, in place.
            source: where batches come from.
            config: how.
            evaluations: run every `evaluate_every` steps and at the end, by all ranks alike.
            out: folder of checkpoints and logs, created if missing; None = keep nothing.
            run_info: plain values that describe method and data. They are stored in checkpoints,
                and a run resumes only if they are equal.
            progress: show a progress bar on stderr.

        Raises:
            ValueError: if the device does not exist here or nothing is trainable.
            OSError: if the output folder cannot be written to.
        """
        self.source, self.config, self.evaluations = source, config, tuple(evaluations)
        self.device = pick_device(config.device)
        self.dtype = resolve_precision(config.precision, self.device)
        check_threads(config.threads)
        self.ranks = parallel.join(self.device)
        self.is_main = self.ranks.rank == 0
        self.out = Path(out) if out is not None else None
        if config.profile and not self.out:
            raise ValueError("profile is on, but there is no output folder for the trace; give out")
        if self.out and self.is_main:
            prepare_folder(self.out)
        self.identity = describe_run(config, self.dtype, run_info, self.ranks.num_ranks, source)
        self.progress = progress and self.is_main
        self.method = method.to(self.device)
        self.module = parallel.wrap(self.method, self.device, config.shard)
        self.forward = torch.compile(self.module) if config.compile else self.module
        self.optimizer = optim.build_optimizer(self.method, config)
        self.draws = StepDraws(config.seed, self.ranks.rank, self.device)
        self.step = 0  # optimiser steps done
        self.history: list[dict[str, float]] = []  # log lines
        self.first_bad = torch.tensor(NEVER, device=self.device)  # step of a non-finite loss
        self.flops: int | None = None  # of one step on this rank, counted in the first
        self.meter = Meter(self.device, config.batch_size * self.ranks.num_ranks)

    def fit(self) -> Summary:
        """Train to the last step: from the newest good checkpoint, or from the start.

        Interrupting (SIGTERM, Ctrl-C, the notebook's stop button) ends the step, saves and
        returns; calling again goes on. Precision, threads, random state, signal handlers and the
        method's mode are put back.

        Raises:
            FloatingPointError: if the loss or a weight is not finite.
            CheckpointError: if the output folder holds another run.
            OSError: if a checkpoint cannot be written; earlier ones are intact.
        """
        config, start = self.config, self.restore()
        with ExitStack() as stack:
            stop = stack.enter_context(StopSignal())
            stack.enter_context(numeric_mode(self.device, config.threads))
            stack.callback(self.method.train, self.method.training)
            self.method.train()
            folder = self.out if self.is_main else None
            log = Log(folder, start, config.steps, self.progress, self.history)
            self.history = stack.enter_context(log).history
            if start < config.steps:
                batches = open_batches(self.source, config, start, self.ranks, self.device)
                batches = stack.enter_context(batches)
                is_traced = config.profile and folder
                profiler = stack.enter_context(trace(folder, self.device)) if is_traced else None
                stopped = self.run_steps(start, batches, log, stop, profiler)
            elif self.evaluations and self.history and self.history[-1]["step"] < start:
                log.write({"step": start, **self.evaluate()})  # it failed after the last step
        return log.summary(stopped=start < config.steps and stopped)

    def run_steps(
        self,
        start: int,
        batches: Iterator[NamedTuple],
        log: Log,
        stop: StopSignal,
        profiler: torch.profiler.profile | None,
    ) -> bool:
        """Run the steps in the order of events; return True if a signal ended them early."""
        config = self.config
        best = matmul_rate(self.device, self.dtype, torch.get_num_threads())
        self.meter.start(log.seconds)
        for step in range(start, config.steps):
            rate = config.rate(step, self.ranks.num_ranks)
            optim.set_rate(self.optimizer, rate, config.decay(step))
            values, state = self.train_step(next(batches), step)
            with torch.no_grad():
                self.method.after_step(state, step / config.steps)
            self.meter.add(values)
            done = self.step = step + 1
            last = done == config.steps
            stopped = bool(parallel.largest_over_ranks(stop.asked)) and not last
            record = {}
            if done == 1 or last or stopped or done % config.log_every == 0:
                record |= {**self.read_meter(best), "rate": rate}
            if not stopped and self.evaluations and is_due(config.evaluate_every, done, last):
                try:
                    record |= self.evaluate()
                except Exception:
                    if self.ranks.num_ranks == 1:  # else the other ranks would not join in
                        self.save()
                    raise
            if record:
                log.write({"step": done, **record})
            if stopped or is_due(config.save_every, done, last):
                self.save()
            log.bar.update()
            if profiler is not None:
                profiler.step()
            if stopped:
                return True
        return False

    def train_step(
        self, batch: NamedTuple, step: int
    ) -> tuple[dict[str, Tensor], Mapping[str, Tensor] | None]:
        """Take one optimiser step without waiting for the device.

        Returns the scalars to log and the state for `after_step`, averaged over micro-batches; the
        state also over ranks.
        """
        num_parts = self.config.accumulation
        divided = num_parts * self.ranks.num_ranks > 1  # the loss is a mean of several
        results, states, weights = [], [], []
        for micro_step, part in enumerate(micro_batches(batch, num_parts)):
            part = tree_map_only(Tensor, lambda t: t.to(self.device, non_blocking=True), part)
            with torch.no_grad():
                views = self.method.sample_views(part, self.draws.start(step, micro_step))
            if self.flops is None:
                with self.meter.pause():
                    count = 0 if self.config.shard else count_flops(self.method, views)
                    self.flops = count * num_parts
            waiting = micro_step + 1 < num_parts
            with parallel.local_gradients(self.module) if waiting else nullcontext():
                output = self.forward_backward(views, 1 / num_parts, divided)
            results.append({**output.terms, "loss": output.loss.detach()})
            states.append(output.state)
            weights += [output.weight] if output.weight is not None else []
        values = mean_of(results, weights)
        if weights and divided:
            share = parallel.weigh_gradients(self.method, weights)
            values = {name: value * share for name, value in values.items()}
        self.first_bad.clamp_(max=torch.where(values["loss"].isfinite(), NEVER, step))
        if self.config.clip_norm:
            values["gradient_norm"] = parallel.whole(optim.clip_gradients(self.method, self.config))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return values, parallel.mean_over_ranks(mean_of(states)) if states[0] else states[0]

    def forward_backward(self, views: NamedTuple, share: float, weighted: bool) -> Output:
        """Add the gradient of one micro-batch, `share` times, and times its weight if asked to.

        Raises TypeError if the loss was not computed in float32.
        """
        low = self.dtype is not torch.float32
        with torch.autocast(self.device.type, self.dtype if low else None, enabled=low):
            output = self.forward(views)
        if output.loss.dtype is not torch.float32:
            raise TypeError(
                f"the loss of {type(self.method).__name__} is {output.loss.dtype}; "
                "compute losses in float32 (call .float() on the prediction)"
            )
        loss = output.loss * share
        (loss if output.weight is None or not weighted else loss * output.weight).backward()
        return output

    def read_meter(self, best: float) -> dict[str, float]:
        """Return means since the last log line, speed, MFU against `best`, memory; all finite."""
        record = self.meter.read()
        if not isfinite(record["loss"]):
            self.check_finite()
        if self.flops:
            steps_per_second = record["images_per_second"] / self.meter.images_per_step
            record["mfu"] = self.flops * steps_per_second / best
        return record

    def evaluate(self) -> dict[str, float]:
        """Run the evaluations; every rank does, as sharded weights would need."""
        with self.meter.pause():
            return {
                f"{evaluation.name}/{name}": float(value)
                for evaluation in self.evaluations
                for name, value in evaluation.run(self.method, self.device).items()
            }

    def save(self) -> None:
        """Write a checkpoint of the steps done, unless the state is not finite.

        Raises:
            FloatingPointError: if a loss or a weight is not finite.
            OSError: if the file cannot be written; earlier checkpoints are intact.
        """
        with self.meter.pause():
            self.check_finite()
            if self.out is None:
                return
            model, moments = parallel.get_state(self.method, self.optimizer)
            payload = {"step": self.step, "model": model, "optimizer": moments}
            payload |= {"config": self.identity, "version": __version__}
            if self.is_main:
                save_checkpoint(self.out, self.step, payload, self.config.keep)

    def restore(self) -> int:
        """Load the newest good checkpoint, unless some steps are done; return the steps done.

        Raises CheckpointError if every checkpoint is broken, or the newest is of another run.
        """
        path, stored = newest_good(self.out) if self.out and not self.step else (None, None)
        step = stored["step"] if stored else 0
        if parallel.largest_over_ranks(step) != -parallel.largest_over_ranks(-step):
            raise CheckpointError(f"ranks see different checkpoints in {self.out}; share the disk")
        if not stored:
            return self.step
        check_same_run(path, stored["config"], self.identity)
        try:
            optim.check_groups(self.optimizer, stored["optimizer"])
            model, moments = stored["model"], stored["optimizer"]
            parallel.set_state(self.method, self.optimizer, model, moments)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} does not fit this model: {reason}") from error
        self.step = step
        return step

    def check_finite(self) -> None:
        """Raise FloatingPointError if a loss so far, a weight or a moment is not finite."""
        first_bad = -parallel.largest_over_ranks(-int(self.first_bad))
        moments = tree_leaves([*self.optimizer.state.values()])
        kept = map(parallel.local, [*self.method.parameters(), *moments])
        if not parallel.largest_over_ranks(first_bad < NEVER or not all_finite(kept)):
            return
        what = f"the loss of step {first_bad + 1}" if first_bad < NEVER else "a weight or moment"
        good = latest_checkpoint(self.out) if self.out else None
        raise FloatingPointError(
            f"{what} is not finite; last good checkpoint: {good or 'none'}. Lower base_rate, set "
            "clip_norm, or use precision float32, in a new output folder"
        )
