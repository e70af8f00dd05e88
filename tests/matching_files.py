"""Tiny data sets of flow and stereo in the layouts of their authors, two pairs (or more) in each.

Red is the column of a pixel, green its row, blue says which image it is. The true displacement is
1 + column and 1 + row; the corner at the top left is unknown.
"""

from functools import partial

import number_files
import numpy as np
import torch
from PIL import Image

from mimlib.data.files.numbers import Dense

SHAPE = (20, 28)


def picture(path, value, shape=SHAPE):
    """An image; what ends in .jpg holds a PNG, which keeps its pixels and is read as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*shape, 3), value, dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(shape[1]), np.arange(shape[0])[:, None]
    Image.fromarray(pixels).save(path, format="PPM" if path.suffix == ".ppm" else "PNG")


def truth(channels, shape=SHAPE):
    rows, columns = torch.meshgrid(*(torch.arange(side) + 1.0 for side in shape), indexing="ij")
    values = torch.stack([columns, rows], dim=-1)[..., :channels]
    valid = torch.ones(shape, dtype=torch.bool)
    valid[0, 0] = False
    return Dense(values, valid)


def unknown_as(mark, channels, shape=SHAPE):
    """The truth as an array [H, W] or [H, W, 2] with `mark` where it is unknown."""
    values, valid = truth(channels, shape)
    values = torch.where(valid[..., None], values, mark).numpy()
    return values if channels == 2 else values[..., 0]


def made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def gray(path, values):
    Image.fromarray(values).save(made(path))


def pfm(path, values):
    number_files.write_pfm(made(path), torch.from_numpy(np.ascontiguousarray(values)))


def array(path, values):
    np.save(made(path), values)


def write_sintel(root, shape=SHAPE):
    for number in (1, 2, 3):
        for rendering in ("clean", "final"):
            name = f"training/{rendering}/alley/frame_{number:04d}.png"
            picture(root / name, 10 * number + (rendering == "final"), shape)
    for number in (1, 2):
        flow = made(root / f"training/flow/alley/frame_{number:04d}.flo")
        number_files.write_flo(flow, Dense(truth(2, shape).values, torch.ones(shape).bool()))
        invalid = (~truth(2, shape).valid.numpy() * 255).astype(np.uint8)
        gray(root / f"training/invalid/alley/frame_{number:04d}.png", invalid)


def write_chairs(root, split="1 2 1"):
    (root / "chairs_split.txt").write_text(split.replace(" ", "\n"))
    for number in range(1, len(split.split()) + 1):
        for view in (1, 2):
            picture(root / f"data/{number:05d}_img{view}.ppm", 10 * number + view - 1)
        number_files.write_flo(root / f"data/{number:05d}_flow.flo", truth(2))


def write_kitti(root, views=("image_2", "image_3"), truths=("flow_occ", "disp_occ_0")):
    for number in (1, 2):
        for folder, frame in ((views[0], 10), (views[0], 11), (views[1], 10)):
            name = f"training/{folder}/{number:06d}_{frame}.png"
            picture(root / name, 10 * number + (frame == 11 or folder == views[1]))
        name = f"{number:06d}_10.png"
        number_files.write_kitti_flow(made(root / "training" / truths[0] / name), truth(2))
        number_files.write_kitti_disparity(made(root / "training" / truths[1] / name), truth(1))


def write_middlebury(root, names=("disp0.pfm", "disp0GT.pfm")):
    for number, name in enumerate(names, start=1):
        for ending, step in (("im0", 0), ("im1", 1), ("im1E", 2), ("im1L", 3)):
            picture(root / f"scene{number}/{ending}.png", 10 * number + step)
        pfm(root / f"scene{number}" / name, unknown_as(torch.inf, 1))


def write_middlebury_2021(root):
    write_middlebury(root, ("disp0.pfm",))
    for number, light in enumerate(("F0/im{}e0", "L1/im{}e2"), start=1):
        for view in (0, 1):
            picture(root / f"scene1/ambient/{light.format(view)}.png", 10 * number + view)


def write_middlebury_2005(root):
    for number, light in enumerate(("Illum1/Exp0", "Illum3/Exp2"), start=1):
        for view, name in enumerate(("view1", "view5")):
            picture(root / f"Art/{light}/{name}.png", 10 * number + view)
    gray(root / "Art/disp1.png", unknown_as(0, 1).astype(np.uint8))


def write_eth3d(root, ground_truth="training_gt"):
    mask = np.full(SHAPE, 255, dtype=np.uint8)
    mask[1], mask[2] = 128, 0  # a row that the right image hides, one without ground truth
    for number in (1, 2):
        for view in (0, 1):
            picture(root / f"training/scene_{number}l/im{view}.png", 10 * number + view)
        folder = root / ground_truth / f"scene_{number}l"
        pfm(folder / "disp0GT.pfm", unknown_as(torch.inf, 1))
        gray(folder / "mask0nocc.png", mask)


def write_sceneflow(root):
    """Two frames of Monkaa, and one pair of FlyingThings3D's test part."""
    scenes = {"Monkaa": ("a_rain", 1, (7, 8)), "FlyingThings3D": ("TEST/A/0000", 5, (6,))}
    for name, (scene, first, shots) in scenes.items():
        for i, number in enumerate(shots):
            for rendering in ("clean", "final"):
                folder = root / f"{name}/frames_{rendering}pass" / scene
                for view, side in enumerate(("left", "right")):
                    value = 10 * (first + i) + 2 * view + (rendering == "final")
                    picture(folder / side / f"{number:04d}.png", value)
            pfm(root / name / "disparity" / scene / f"left/{number:04d}.pfm", unknown_as(0, 1))
            for side in ("left", "right"):
                for way in ("Future", "Past"):
                    flow = f"into_{way.lower()}/{side}/OpticalFlowInto{way}_{number:04d}_L.pfm"
                    values = np.concatenate([unknown_as(np.nan, 2), np.zeros((*SHAPE, 1))], -1)
                    pfm(root / name / "optical_flow" / scene / flow, values.astype(np.float32))


def write_tartanair(root):
    folder = root / "office/office/Easy/P000"
    for number in (0, 1, 2):
        for view, side in enumerate(("left", "right")):
            name = f"image_{side}/{number:06d}_{side}.png"
            picture(folder / name, 10 * (number + 1) + view)
        with np.errstate(divide="ignore"):
            depth = 80 / unknown_as(0, 1)
        array(folder / f"depth_left/{number:06d}_left_depth.npy", depth)
    for number in (0, 1):
        name = folder / f"flow/{number:06d}_{number + 1:06d}"
        array(name.with_name(name.name + "_flow.npy"), truth(2).values.numpy())
        mask = (~truth(2).valid.numpy() * 100).astype(np.uint8)
        array(name.with_name(name.name + "_mask.npy"), mask)


def write_crestereo(root):
    for number, tree in ((1, "hole"), (2, "tree")):
        for view, side in enumerate(("left", "right")):
            picture(root / f"{tree}/{number:06d}_{side}.jpg", 10 * number + view)
        stored = (unknown_as(0, 1) * 32).astype(np.uint16)
        gray(root / f"{tree}/{number:06d}_left.disp.png", stored)


def write_booster(root):
    for number in (1, 2):
        for view, camera in enumerate(("camera_00", "camera_02")):
            picture(root / f"Bathroom/{camera}/im{number}.png", 10 * number + view)
    array(root / "Bathroom/disp_00.npy", unknown_as(0, 1))


def write_spring(root):
    """Ground truth of twice the sides: what lies between the even rows and columns is wrong."""
    import h5py

    def fine(values):
        values = np.asarray(values)
        large = np.full((2 * SHAPE[0], 2 * SHAPE[1], *values.shape[2:]), -7, dtype=np.float32)
        large[::2, ::2] = values
        return large

    scene = root / "train/0001"
    for number in (1, 2):
        for view, side in enumerate(("left", "right")):
            name = f"frame_{side}/frame_{side}_{number:04d}.png"
            picture(scene / name, 10 * number + view)
        with h5py.File(made(scene / f"disp1_left/disp1_left_{number:04d}.dsp5"), "w") as file:
            file["disparity"] = fine(unknown_as(np.nan, 1))
    for direction, number in (("FW", 1), ("BW", 2)):
        name = f"flow_{direction}_left/flow_{direction}_left_{number:04d}.flo5"
        with h5py.File(made(scene / name), "w") as file:
            file["flow"] = fine(unknown_as(np.nan, 2))


KITTI_2012 = partial(write_kitti, views=("colored_0", "colored_1"), truths=("flow_occ", "disp_occ"))
PAIRS = [(10, 11), (20, 21)]
WRITERS = {  # layout: writer, blue of the first and second images of all pairs in their order
    "sintel_clean": (write_sintel, [(10, 20), (20, 30)]),
    "sintel_final": (write_sintel, [(11, 21), (21, 31)]),
    "flying_chairs": (write_chairs, [*PAIRS, (30, 31)]),
    "flying_chairs_train": (write_chairs, [(10, 11), (30, 31)]),
    "flying_chairs_val": (write_chairs, [(20, 21)]),
    "sceneflow_flow_clean": (write_sceneflow, [(10, 20), (20, 10)]),
    "sceneflow_flow_final": (write_sceneflow, [(11, 21), (21, 11)]),
    "tartanair_flow": (write_tartanair, [(10, 20), (20, 30)]),
    "kitti_flow": (write_kitti, PAIRS),
    "kitti_2012_flow": (KITTI_2012, PAIRS),
    "spring_flow": (write_spring, [(20, 10), (10, 20)]),
    "sceneflow_clean": (write_sceneflow, [(50, 52), (10, 12), (20, 22)]),
    "sceneflow_final": (write_sceneflow, [(51, 53), (11, 13), (21, 23)]),
    "tartanair_stereo": (write_tartanair, [*PAIRS, (30, 31)]),
    "crestereo": (write_crestereo, PAIRS),
    "kitti_stereo": (write_kitti, PAIRS),
    "kitti_2012_stereo": (KITTI_2012, PAIRS),
    "middlebury": (write_middlebury, PAIRS),
    "middlebury_2005": (write_middlebury_2005, PAIRS),
    "middlebury_2014": (write_middlebury, [(n, n + i) for n in (10, 20) for i in (1, 2, 3)]),
    "middlebury_2021": (write_middlebury_2021, PAIRS),
    "eth3d": (write_eth3d, PAIRS),
    "eth3d_visible": (write_eth3d, PAIRS),
    "booster": (write_booster, PAIRS),
    "spring_stereo": (write_spring, PAIRS),
}
