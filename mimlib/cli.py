"""The command line: list | show | train | follow | study | ship | bench | doctor.

python -m mimlib list
python -m mimlib show mae_lesson
python -m mimlib train mae_lesson --train.steps 200 --out runs/try
torchrun --nproc-per-node 8 -m mimlib train mae_vitb16_in1k --data.root /data/imagenet
python -m mimlib follow selfpatch_vits16_in1k runs/selfpatch_vits16_in1k --root data/davis
python -m mimlib study mae.1
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mimlib.evidence import shipping, studies
from mimlib.machine import bench, doctor
from mimlib.presets import PRESETS, preset
from mimlib.presets.run import Run
from mimlib.runs import evaluate, show
from mimlib.runs.launch import Result, launch


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Everything `train` takes beside the preset's own fields."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    out: str = ""  # output folder; empty: runs/<preset>
    num_processes: int = 1  # more than one goes through torchrun on this machine
    progress: bool = True  # show the progress bar


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="mimlib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all presets")
    commands.add_parser("doctor", help="what is installed, what lessons cost here, what is wrong")
    for name, text in (("show", "resolve a preset without training"), ("train", "train a preset")):
        command = commands.add_parser(name, help=text, add_help=False)
        command.add_argument("preset")
    evaluate.add_arguments(commands.add_parser("follow", help="J and F of an encoder on DAVIS"))
    bench.add_arguments(commands.add_parser("bench", help="FLOPs, saved bytes, images/s, MFU"))
    studies.add_arguments(commands.add_parser("study", help="run a claim over settings and seeds"))
    shipping.add_arguments(commands.add_parser("ship", help="keep the network of finished runs"))
    known, rest = parser.parse_known_args(arguments)
    if rest and known.command not in ("show", "train"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        return _dispatch(known, rest)
    except (ValueError, OSError, RuntimeError, ArithmeticError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _dispatch(known: argparse.Namespace, rest: list[str]) -> int:
    match known.command:
        case "list":
            print(show.table([function() for function in PRESETS.values()]))
        case "doctor":
            return doctor.report()
        case "bench":
            bench.main(known)
        case "follow":
            evaluate.main(known)
        case "study":
            studies.main(known)
        case "ship":
            shipping.main(known)
        case "show":
            command = _command(known.preset, rest)
            print(show.describe(command.run, command.num_processes))
        case "train":
            command = _command(known.preset, rest)
            out = Path(command.out or f"runs/{known.preset}")
            result = launch(command.run, out, command.num_processes, command.progress)
            return _say(result, command.run.train.steps)
    return 0


def _say(result: Result, steps: int) -> int:
    """Print the end of a training once for all ranks; a run that was stopped is no success."""
    summary = result.summary
    if os.environ.get("RANK", "0") == "0":
        state = f"stopped at step {summary.step} of {steps}" if summary.stopped else "finished"
        print(f"{state}: step {summary.step}, loss {summary.loss:.4f}, in {result.out}")
    return int(summary.stopped)


def _command(name: str, rest: list[str]) -> TrainCommand:
    """Apply command-line flags to a preset; mistyped ones are refused with the nearest name."""
    return tyro.cli(
        TrainCommand,
        default=TrainCommand(run=preset(name)),
        args=rest,
        prog=f"mimlib train {name}",
        config=(tyro.conf.AvoidSubcommands,),  # the preset says which kind of encoder it is
    )
