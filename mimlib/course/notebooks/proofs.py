"""Which production names the lessons prove, and which they owe."""

import ast
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterable
from pathlib import Path

ROOMS = ("mimlib.layers", "mimlib.encoders", "mimlib.decoders", "mimlib.methods")

# Public names that no proof cell names, each with the reason.
NOT_PROVED = {
    "mimlib.layers.blocks.DropPath": "off in every lesson; tested in tests/",
    "mimlib.layers.blocks.initialize": "draws random numbers; tested in tests/",
    "mimlib.layers.patches.grid_of": "counts and complains; every patchify proof runs it",
    "mimlib.layers.positions.resize_table": "bicubic interpolation by torch; tested in tests/",
    "mimlib.layers.blocks.forget": "calls a function again; every proof of Block.forward runs it",
    "mimlib.layers.blocks.ResidualBlock": "every proof of Block.forward runs it",
    "mimlib.layers.attention.Sight": "a tuple of names",
    "mimlib.layers.cells.Places": "a tuple of names",
    "mimlib.layers.collectives.SumOverRanks": "a sum over processes; tested in tests/",
    "mimlib.layers.collectives.SyncBatchNorm": "statistics over processes; tested in tests/",
    "mimlib.layers.cells.side_of": "a product of two numbers",
    "mimlib.encoders.convvit.ConvViTConfig": "a configuration, no arithmetic",
    "mimlib.encoders.convvit.convvit_config": "a table look-up",
    "mimlib.encoders.pyramid.Pyramid": "torch's convolutions in a row; tested in tests/",
    "mimlib.encoders.pyramid.build_encoder": "builds, no arithmetic",
    "mimlib.encoders.pyramid.quarters": "counts and complains; tested in tests/",
    "mimlib.encoders.vit.ViTConfig": "a configuration, no arithmetic",
    "mimlib.encoders.vit.vit_config": "a table look-up",
    "mimlib.decoders.pair.PairDecoderConfig": "a configuration, no arithmetic",
    "mimlib.layers.positions.fit_table": "resize_table from a square; tested in tests/",
    "mimlib.methods.croco.CroCoViews": "a tuple of names",
    "mimlib.methods.autoencoder.Autoencoder": "proved as MAE and ConvMAE",
    "mimlib.methods.autoencoder.AutoencoderConfig": "proved as MAEConfig",
    "mimlib.methods.autoencoder.MAEViews": "a tuple of names",
    "mimlib.methods.objectives.masked.masked_target": "every proof of MAE.forward runs it",
    "mimlib.layers.windows.RelativeBias": "of full-scale detection alone; tested in tests/",
    "mimlib.layers.windows.Window": "a tuple of names",
    "mimlib.layers.windows.Windows": "of full-scale detection alone; tested in tests/",
    "mimlib.layers.collectives.gather_from_ranks": "needs several processes; tested in tests/",
    "mimlib.layers.views.multicrop.MultiCropConfig": "a configuration, no arithmetic",
    "mimlib.layers.views.multicrop.MultiCropViews": "a tuple of names",
    "mimlib.layers.neighbours.Neighbours": "a tuple of names",
    "mimlib.layers.neighbours.check_window": "complains; every neighbour_table proof runs it",
    "mimlib.layers.projection.Likeness": "a linear map and its gradient; tested in tests/",
    "mimlib.layers.projection.initialize_narrow": "draws random numbers; tested in tests/",
    "mimlib.encoders.swin.SwinConfig": "a configuration, no arithmetic",
    "mimlib.encoders.swin.Swin": "timm's network; tested in tests/",
    "mimlib.methods.objectives.distillation.DistillationConfig": "a configuration, no arithmetic",
    "mimlib.methods.objectives.contrast.ContrastConfig": "a configuration, no arithmetic",
    "mimlib.methods.siamese.SiameseConfig": "a configuration, no arithmetic",
    "mimlib.layers.class_attention.Memory": "a tuple of names",
    "mimlib.layers.packing.pack": "moves rows; every proof of CroCo.encode runs it",
    "mimlib.layers.packing.unpack": "moves rows; every proof of CroCo.encode runs it",
    "mimlib.methods.siamese.Encoded": "a tuple of names",
    "mimlib.methods.siamese.Network": "holds parts, no arithmetic",
    "mimlib.methods.siamese.initialize": "draws random numbers; tested in tests/",
    "mimlib.methods.dino.DINOConfig": "a configuration, no arithmetic",
    "mimlib.methods.selfpatch.SelfPatchConfig": "a configuration, no arithmetic",
    "mimlib.methods.objectives.masked.paint": "draws; tested through the methods in tests/",
}

# Public names whose proof cell belongs to a lesson that is not written yet: name -> lesson. When
# its notebook is there, the name must be proved in it: the entry goes.
OWED: dict[str, str] = {}


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
    """Return dotted names of all public functions and classes that the rooms define."""
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
            ]
    return tuple(sorted(names))


def resolve(dotted: str) -> object:
    """Return what a name such as "mimlib.methods.mae.MAE.decode" stands for.

    Raises:
        LookupError: if there is no such thing.
    """
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            item = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        try:
            for name in parts[cut:]:
                item = getattr(item, name)
        except AttributeError:
            break
        return item
    raise LookupError(f"there is nothing called {dotted}")
