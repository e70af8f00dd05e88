"""Which production names the lessons prove."""

import ast
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterable
from dataclasses import is_dataclass
from pathlib import Path

ROOMS = ("mimlib.layers", "mimlib.encoders", "mimlib.decoders", "mimlib.methods")

# Public names that no proof cell names, each with the reason.
NOT_PROVED = {
    "mimlib.layers.blocks.DropPath": "off in every lesson; tested in tests/",
    "mimlib.layers.blocks.initialize": "draws random numbers; tested in tests/",
    "mimlib.layers.patches.grid_of": "counts and complains; every patchify proof runs it",
    "mimlib.layers.positions.check_quarters": "complains; tested in tests/",
    "mimlib.layers.positions.resize_table": "bicubic interpolation by torch; tested in tests/",
    "mimlib.layers.recompute.recompute": "calls again; every proof of Block.forward runs it",
    "mimlib.layers.blocks.ResidualBlock": "every proof of Block.forward runs it",
    "mimlib.layers.collectives.SumOverRanks": "a sum over processes; tested in tests/",
    "mimlib.layers.collectives.RowsOfRanks": "rows of several processes; tested in tests/",
    "mimlib.layers.collectives.SyncBatchNorm": "statistics over processes; tested in tests/",
    "mimlib.layers.cells.side_of": "a product of two numbers",
    "mimlib.encoders.convvit.convvit_config": "a table look-up",
    "mimlib.encoders.pyramid.Pyramid": "torch's convolutions in a row; tested in tests/",
    "mimlib.encoders.pyramid.build_encoder": "builds, no arithmetic",
    "mimlib.encoders.pyramid.quarters": "counts and complains; tested in tests/",
    "mimlib.encoders.grid.GridConfig": "counts and complains; tested in tests/",
    "mimlib.encoders.grid.GridEncoder": "every proof of ViT and ConvViT runs it",
    "mimlib.encoders.vit.vit_config": "a table look-up",
    "mimlib.layers.positions.fit_table": "resize_table from a square; tested in tests/",
    "mimlib.methods.autoencoder.Autoencoder": "proved as MAE and ConvMAE",
    "mimlib.layers.windows.RelativeBias": "of full-scale detection alone; tested in tests/",
    "mimlib.layers.windows.Windows": "of full-scale detection alone; tested in tests/",
    "mimlib.layers.collectives.gather_from_ranks": "needs several processes; tested in tests/",
    "mimlib.layers.neighbors.check_window": "complains; every neighbor_table proof runs it",
    "mimlib.layers.projection.PrototypeLogits": "a linear map and its gradient; tested in tests/",
    "mimlib.layers.projection.initialize_narrow": "draws random numbers; tested in tests/",
    "mimlib.encoders.swin.Swin": "timm's network; tested in tests/",
    "mimlib.layers.packing.pack": "moves rows; every proof of CroCo.encode runs it",
    "mimlib.layers.packing.unpack": "moves rows; every proof of CroCo.encode runs it",
    "mimlib.methods.siamese.Network": "holds parts, no arithmetic",
    "mimlib.methods.siamese.initialize": "draws random numbers; tested in tests/",
    "mimlib.methods.objectives.masked.MaskedMethod": "proved as MAE, ConvMAE and CroCo",
    # Of ConST-CL, which has no lesson yet; tested in tests/, and against the official numbers.
    "mimlib.decoders.context.ContextDecoder": "of ConST-CL",
    "mimlib.decoders.context.Layer": "of ConST-CL",
    "mimlib.decoders.context.Unit": "of ConST-CL",
    "mimlib.decoders.context.context_frames": "of ConST-CL",
    "mimlib.encoders.r3d.Bottleneck": "of ConST-CL",
    "mimlib.encoders.r3d.R3D": "of ConST-CL",
    "mimlib.layers.convolution3d.ClipNorm": "of ConST-CL",
    "mimlib.layers.convolution3d.Conv3d": "of ConST-CL",
    "mimlib.layers.convolution3d.MaxPool3d": "of ConST-CL",
    "mimlib.layers.convolution3d.pad": "of ConST-CL",
    "mimlib.layers.convolution3d.paddings": "of ConST-CL",
    "mimlib.layers.regions.align_regions": "of ConST-CL",
    "mimlib.layers.regions.key_frame": "of ConST-CL",
    "mimlib.layers.regions.make_boxes": "of ConST-CL",
    "mimlib.layers.regions.normalize_length": "of ConST-CL",
    "mimlib.layers.regions.pool_regions": "of ConST-CL",
    "mimlib.methods.constcl.ConSTCL": "of ConST-CL",
    "mimlib.methods.objectives.clips.clip_logits": "of ConST-CL",
    "mimlib.methods.objectives.clips.contrast_clips": "of ConST-CL",
    "mimlib.methods.objectives.clips.contrast_regions": "of ConST-CL",
    "mimlib.methods.objectives.clips.match_regions": "of ConST-CL",
    "mimlib.methods.objectives.clips.region_logits": "of ConST-CL",
}


def proved_names(notebook: Path) -> tuple[str, ...]:
    """Return the `proves=` literals of the check cells of a notebook."""
    names = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.Call):
                names += [k.value.value for k in node.keywords if k.arg == "proves"]
    return tuple(names)


def public_names(rooms: Iterable[str] = ROOMS) -> tuple[str, ...]:
    """Return dotted names of the public functions and classes that the rooms define.

    Tuples of names and configurations compute nothing and are left out.
    """
    names = []
    for room in rooms:
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, prefix=f"{room}."):
            loaded = importlib.import_module(module.name)
            names += [
                f"{module.name}.{name}"
                for name, item in vars(loaded).items()
                if not name.startswith("_")
                and (inspect.isfunction(item) or inspect.isclass(item))
                and item.__module__ == module.name
                and not (inspect.isclass(item) and (issubclass(item, tuple) or is_dataclass(item)))
            ]
    return tuple(sorted(names))
