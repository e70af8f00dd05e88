"""The command line: each class is a command, its fields are positions and flags.

python -m mimlib list
python -m mimlib show mae_lesson
python -m mimlib train mae_lesson --train.steps 200 --out runs/try
torchrun --nproc-per-node 8 -m mimlib train mae_vitb16_in1k --data.root /data/imagenet
python -m mimlib follow selfpatch_vits16_in1k runs/selfpatch_vits16_in1k --root data/davis
python -m mimlib study mae.1
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mimlib.runs.mistakes import Mistake, mistakes

# A command imports what it needs when it runs: help and mistyped flags do not wait for torch.

PresetName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...")]
Folders = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER ...")]


@dataclass(frozen=True)
class List:
    """Show all presets."""

    def __call__(self) -> int:
        """Print a line for each."""
        from mimlib.presets import PRESETS
        from mimlib.runs import show

        print(show.table(PRESETS))
        return 0


@dataclass(frozen=True)
class Doctor:
    """Tell what is installed, what lessons cost here, what is wrong."""

    def __call__(self) -> int:
        """Print findings; those that must be mended make the exit code."""
        from mimlib.machine import doctor

        return doctor.report()


@dataclass(frozen=True, kw_only=True)
class Show:
    """Resolve a preset without training: recipe card, config, parameters, FLOPs, memory."""

    run: Annotated[object, tyro.conf.arg(name="")]
    num_processes: int = 1  # that a step is spread over

    def __call__(self) -> int:
        """Print the description."""
        from mimlib.presets import PRESETS
        from mimlib.runs import show

        print(PRESETS[self.run.name].describe(self.run.name), end="\n\n")
        print(show.describe(self.run, self.num_processes))
        return 0


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a preset; every field of it is a flag: 'train PRESET --help' shows them."""

    run: Annotated[object, tyro.conf.arg(name="")]
    out: str = ""  # output folder; empty: runs/<preset>
    num_processes: int = 1  # on this machine
    progress: bool = True  # show the progress bar

    def __call__(self) -> int:
        """Train, and say once for all ranks how it ended; a run that was stopped is no success."""
        from mimlib.presets import PRESETS
        from mimlib.runs.launch import launch

        out, main = Path(self.out or f"runs/{self.run.name}"), os.environ.get("RANK", "0") == "0"
        if main and not self.run.pretrained and (start := PRESETS[self.run.name].pretrained):
            print(f"starts from random weights; its card says --pretrained {start}", flush=True)
        summary = launch(self.run, out, self.num_processes, self.progress).summary
        if main:
            steps = self.run.train.steps
            state = f"stopped at step {summary.step} of {steps}" if summary.stopped else "finished"
            print(f"{state}: step {summary.step}, loss {summary.loss:.4f}, in {out}")
        return int(summary.stopped)


@dataclass(frozen=True, kw_only=True)
class Follow:
    """Measure J and F of an encoder on DAVIS."""

    preset: PresetName  # says the shape of the encoder
    weights: tyro.conf.Positional[str]  # folder of a run, checkpoint, or published file
    root: str = "data/davis"  # folder of DAVIS 2017
    split: str = "val"  # list of names; empty: all sequences
    device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps

    def __call__(self) -> int:
        """Print scores in per cent, as papers do."""
        from mimlib.data.videos.davis import DavisConfig
        from mimlib.presets import preset
        from mimlib.runs.evaluate import follow

        with mistakes():
            run, videos = preset(self.preset), DavisConfig(root=self.root, split=self.split)
        for name, value in follow(run, self.weights, videos, self.device).items():
            print(f"{100 * value:6.2f}  {name}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure FLOPs, saved bytes, images/s, MFU."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
    quick: bool = False  # seconds in place of a minute

    def __call__(self) -> int:
        """Print the report line by line."""
        from mimlib.machine import bench
        from mimlib.training.config import pick_device

        with mistakes():
            device = pick_device(self.device)
        bench.report(device, self.quick)
        return 0


@dataclass(frozen=True, kw_only=True)
class Study:
    """Run claims over settings and seeds."""

    names: Names  # of claims, mae.1 for one
    size: str = ""  # tiny, lesson, small or gpu; empty: its own
    seeds: int = 0  # of each setting; 0: as many as the claim's receipt has
    jobs: int = 1  # notebooks at a time
    receipts: Path | None = None  # folder of the receipts, for trying out

    def __call__(self) -> int:
        """Print verdicts and write receipts."""
        from mimlib.evidence import studies

        with mistakes():
            chosen = studies.find(self.names)
        studies.report(chosen, self.size, self.seeds, self.jobs, self.receipts)
        return 0


@dataclass(frozen=True, kw_only=True)
class Ship:
    """Keep the network of finished runs."""

    name: PresetName
    runs: Folders  # of finished runs
    receipt_only: bool = False  # keep no network
    receipts: Path | None = None  # another folder, to try out: keep no network
    label: str = ""  # what else to call the receipt: NAME_LABEL

    def __call__(self) -> int:
        """Write the receipt and the network; print where they are."""
        from mimlib.evidence import shipping

        with mistakes():
            shipping.ship(self.name, self.runs, self.label, self.receipt_only, self.receipts)
        return 0


@dataclass(frozen=True)
class _OfPreset:
    preset: PresetName  # 'mimlib list' shows all


COMMANDS = {
    "list": List,
    "show": Show,
    "train": Train,
    "follow": Follow,
    "bench": Bench,
    "study": Study,
    "ship": Ship,
    "doctor": Doctor,
}


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code.

    A mistake of the caller is told in a line; any other error shows where it was raised.
    """
    try:
        with mistakes():
            command = parse(arguments)
        return command()
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # 'mimlib list | head' has read enough
        sys.stderr.close()
        return 1


def parse(arguments: list[str]) -> Show | Train | Follow | Bench | Study | Ship | List | Doctor:
    """Return the command with its fields; 'show' and 'train' take those of their preset as flags.

    ValueError if there is no such preset; SystemExit after help, or a message about what was
    mistyped.
    """
    match arguments:
        case [("show" | "train") as name, chosen, *flags] if chosen not in ("-h", "--help"):
            from mimlib.presets import preset

            return tyro.cli(
                COMMANDS[name],
                default=COMMANDS[name](run=preset(chosen)),
                args=flags,
                prog=f"mimlib {name} {chosen}",
                config=(tyro.conf.AvoidSubcommands,),  # the preset says which kind of encoder it is
            )
    unnamed = {name: _before_its_preset(COMMANDS[name]) for name in ("show", "train")}
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS | unnamed,
        prog="mimlib",
        description=re.sub(r"\n+", "\n\n", __doc__),
        args=arguments,
    )


def _before_its_preset(command: type) -> type:
    """Return what stands in the help for a command whose flags follow from its preset."""
    return type(command.__name__, (_OfPreset,), {"__doc__": command.__doc__})
