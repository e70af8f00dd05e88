"""Where flow and stereo data sets keep their pairs, and how their ground truth is read: one table.

A layout is a function that lists the pairs below a folder, and a reader (numbers.py, arrays.py) of
their ground truth. Disparities are those of the left image.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mimlib.data.files.arrays import (
    import_h5py,
    read_booster_disparity,
    read_spring_disparity,
    read_spring_flow,
    read_tartan_disparity,
    read_tartan_flow,
)
from mimlib.data.files.listing import find_files, read_text
from mimlib.data.files.numbers import (
    Dense,
    read_cre_disparity,
    read_flo,
    read_gray_disparity,
    read_kitti_disparity,
    read_kitti_flow,
    read_pfm_disparity,
    read_pfm_flow,
    read_sintel_flow,
    read_visible_disparity,
)

CHAIRS_SPLIT = "chairs_split.txt"  # a number for each pair: 1 for training, 2 for validation
LIGHTS_2014 = ("im1.png", "im1E.png", "im1L.png")  # second images: the same, exposure, light


class MatchingFiles(NamedTuple):
    """Two images and the files of their ground truth."""

    image_1: Path
    image_2: Path
    truth: tuple[Path, ...]  # what the reader of the layout takes


class Layout(NamedTuple):
    """A row of the table."""

    find: Callable[[Path], Iterator[MatchingFiles]]
    read: Callable[..., Dense]


def find_sintel(root: Path, rendering: str) -> Iterator[MatchingFiles]:
    """List the consecutive frames of MPI Sintel's training part; `clean` or `final` rendering."""
    for flow in find_files(root / "training" / "flow", "*/frame_*.flo"):
        number, scene = int(flow.stem.removeprefix("frame_")), flow.parent.name
        folder = root / "training" / rendering / scene
        images = (folder / f"frame_{number + step:04d}.png" for step in (0, 1))
        invalid = root / "training" / "invalid" / scene / f"{flow.stem}.png"
        yield MatchingFiles(*images, (flow, invalid))


def find_flying_chairs(root: Path, part: int = 0) -> Iterator[MatchingFiles]:
    """List FlyingChairs: data/00001_img1.ppm, _img2.ppm, _flow.flo; all, or a part of the split."""
    flows = find_files(root / "data", "*_flow.flo")
    chosen = read_text(root / CHAIRS_SPLIT).split() if part else []
    numbers = [int(flow.name.partition("_")[0]) for flow in flows]
    if part and max(numbers, default=0) > len(chosen):
        raise ValueError(
            f"{root / CHAIRS_SPLIT} names the part of {len(chosen)} pairs, but {root / 'data'} has "
            f"one of the number {max(numbers)}; are both of one release?"
        )
    for number, flow in zip(numbers, flows):
        if not part or chosen[number - 1] == str(part):
            yield _beside(flow, "flow.flo", "img1.ppm", "img2.ppm")


def find_sceneflow(root: Path, rendering: str) -> Iterator[MatchingFiles]:
    """List SceneFlow's stereo: FlyingThings3D, Driving, Monkaa, or the folder of all three."""
    for disparity in _below_all(root, "disparity", "left/*.pfm"):
        left = _in_place_of(disparity, "disparity", f"frames_{rendering}pass").with_suffix(".png")
        yield MatchingFiles(left, left.parent.parent / "right" / left.name, (disparity,))


def find_sceneflow_flow(root: Path, rendering: str) -> Iterator[MatchingFiles]:
    """List SceneFlow's flow of the left camera, into the future and into the past.

    The last (or first) frame of a sequence has flow, too, but nothing to go with it.
    """
    for direction, step in (("future", 1), ("past", -1)):
        pattern = f"into_{direction}/left/*.pfm"
        folders = {flow.parent for flow in _below_all(root, "optical_flow", pattern)}
        for folder in sorted(folders):
            flows = find_files(folder, "*.pfm")
            frames = _in_place_of(folder, "optical_flow", f"frames_{rendering}pass")
            frames = frames.parent.parent / "left"
            for flow in flows[:-1] if step > 0 else flows[1:]:
                number = int(flow.stem.split("_")[-2])  # OpticalFlowIntoFuture_0006_L
                images = (frames / f"{number + i:04d}.png" for i in (0, step))
                yield MatchingFiles(*images, (flow,))


def find_tartanair_flow(root: Path) -> Iterator[MatchingFiles]:
    """List TartanAir's consecutive frames of the left camera."""
    for flow in find_files(root, "**/flow/*_flow.npy"):
        images = (flow.parent.parent / f"image_left/{n}_left.png" for n in flow.name.split("_")[:2])
        mask = flow.with_name(flow.name.replace("_flow.npy", "_mask.npy"))
        yield MatchingFiles(*images, (flow, mask))


def find_tartanair_stereo(root: Path) -> Iterator[MatchingFiles]:
    """List TartanAir's stereo."""
    for depth in find_files(root, "**/depth_left/*_left_depth.npy"):
        number, folder = depth.name.partition("_")[0], depth.parent.parent
        images = (folder / f"image_{side}" / f"{number}_{side}.png" for side in ("left", "right"))
        yield MatchingFiles(*images, (depth,))


def find_crestereo(root: Path) -> Iterator[MatchingFiles]:
    """List CREStereo's training set: tree/NAME_left.jpg, _right.jpg, _left.disp.png."""
    for disparity in find_files(root, "*/*_left.disp.png"):
        yield _beside(disparity, "left.disp.png", "left.jpg", "right.jpg")


def find_kitti(root: Path, truth: str, first: str, second: str) -> Iterator[MatchingFiles]:
    """List KITTI's training part: frame 10 of the folder `first` with `second`, folder and frame.

    Truth that is called `occ` includes what the second image does not show.
    """
    folder, training = Path(second).parent, root / "training"
    for path in find_files(training / truth, "*_10.png"):
        other = path.name.replace("_10.png", f"_{Path(second).name}.png")
        yield MatchingFiles(training / first / path.name, training / folder / other, (path,))


def find_middlebury(root: Path, seconds: tuple[str, ...] = ("im1.png",)) -> Iterator[MatchingFiles]:
    """List scenes with im0.png, im1.png and disp0.pfm (2014, 2021) or disp0GT.pfm (Eval3).

    The second images of 2014 differ in exposure and light.
    """
    for truth in sorted(find_files(root, "**/disp0.pfm") + find_files(root, "**/disp0GT.pfm")):
        for second in seconds:
            yield MatchingFiles(truth.parent / "im0.png", truth.parent / second, (truth,))


def find_middlebury_2021(root: Path) -> Iterator[MatchingFiles]:
    """List Middlebury 2021 under all its lights: SCENE/ambient/L0/im0e0.png and im1e0.png."""
    for truth in find_files(root, "**/disp0.pfm"):
        for left in find_files(truth.parent / "ambient", "*/im0*.png"):
            yield MatchingFiles(left, left.with_name("im1" + left.name[3:]), (truth,))


def find_middlebury_2005(root: Path) -> Iterator[MatchingFiles]:
    """List Middlebury 2005 and 2006, full size: SCENE/Illum1/Exp0/view1.png and view5.png."""
    for truth in find_files(root, "**/disp1.png"):
        for left in find_files(truth.parent, "**/view1.png"):
            yield MatchingFiles(left, left.with_name("view5.png"), (truth,))


def find_eth3d(root: Path, visible: bool = False) -> Iterator[MatchingFiles]:
    """List ETH3D's low-resolution pairs, ground truth beside the images or in NAME_gt."""
    for truth in find_files(root, "**/disp0GT.pfm"):
        part = truth.parent.parent
        folder = part.with_name(part.name.removesuffix("_gt")) / truth.parent.name
        files = (truth, truth.with_name("mask0nocc.png")) if visible else (truth,)
        yield MatchingFiles(folder / "im0.png", folder / "im1.png", files)


def find_booster(root: Path) -> Iterator[MatchingFiles]:
    """List Booster, balanced: SCENE/camera_00/im0.png, camera_02/im0.png, disp_00.npy."""
    for truth in find_files(root, "**/disp_00.npy"):
        for left in find_files(truth.parent / "camera_00", "*.png"):
            yield MatchingFiles(left, truth.parent / "camera_02" / left.name, (truth,))


def find_spring_flow(root: Path) -> Iterator[MatchingFiles]:
    """List Spring's consecutive frames: both cameras, forward and backward."""
    import_h5py()  # missing, it is better said now than by a worker process
    for flow in find_files(root / "train", "*/flow_*/*.flo5"):
        _, direction, camera, number = flow.stem.split("_")  # flow_FW_left_0001
        frames = flow.parent.parent / f"frame_{camera}"
        numbers = int(number), int(number) + (1 if direction == "FW" else -1)
        yield MatchingFiles(*(frames / f"frame_{camera}_{n:04d}.png" for n in numbers), (flow,))


def find_spring_stereo(root: Path) -> Iterator[MatchingFiles]:
    """List Spring's stereo."""
    import_h5py()
    for truth in find_files(root / "train", "*/disp1_left/*.dsp5"):
        number, scene = truth.stem.rpartition("_")[2], truth.parent.parent
        images = (scene / f"frame_{side}/frame_{side}_{number}.png" for side in ("left", "right"))
        yield MatchingFiles(*images, (truth,))


def _kitti(read: Callable[..., Dense], truth: str, first: str, second: str) -> Layout:
    return Layout(partial(find_kitti, truth=truth, first=first, second=second), read)


FLOW_LAYOUTS = {
    "sintel_clean": Layout(partial(find_sintel, rendering="clean"), read_sintel_flow),
    "sintel_final": Layout(partial(find_sintel, rendering="final"), read_sintel_flow),
    "flying_chairs": Layout(find_flying_chairs, read_flo),
    "flying_chairs_train": Layout(partial(find_flying_chairs, part=1), read_flo),
    "flying_chairs_val": Layout(partial(find_flying_chairs, part=2), read_flo),
    "sceneflow_flow_clean": Layout(partial(find_sceneflow_flow, rendering="clean"), read_pfm_flow),
    "sceneflow_flow_final": Layout(partial(find_sceneflow_flow, rendering="final"), read_pfm_flow),
    "tartanair_flow": Layout(find_tartanair_flow, read_tartan_flow),
    "kitti_flow": _kitti(read_kitti_flow, "flow_occ", "image_2", "image_2/11"),
    "kitti_2012_flow": _kitti(read_kitti_flow, "flow_occ", "colored_0", "colored_0/11"),
    "spring_flow": Layout(find_spring_flow, read_spring_flow),
}
STEREO_LAYOUTS = {
    "sceneflow_clean": Layout(partial(find_sceneflow, rendering="clean"), read_pfm_disparity),
    "sceneflow_final": Layout(partial(find_sceneflow, rendering="final"), read_pfm_disparity),
    "tartanair_stereo": Layout(find_tartanair_stereo, read_tartan_disparity),
    "crestereo": Layout(find_crestereo, read_cre_disparity),
    "kitti_stereo": _kitti(read_kitti_disparity, "disp_occ_0", "image_2", "image_3/10"),
    "kitti_2012_stereo": _kitti(read_kitti_disparity, "disp_occ", "colored_0", "colored_1/10"),
    "middlebury": Layout(find_middlebury, read_pfm_disparity),
    "middlebury_2005": Layout(find_middlebury_2005, read_gray_disparity),
    "middlebury_2014": Layout(partial(find_middlebury, seconds=LIGHTS_2014), read_pfm_disparity),
    "middlebury_2021": Layout(find_middlebury_2021, read_pfm_disparity),
    "eth3d": Layout(find_eth3d, read_pfm_disparity),
    "eth3d_visible": Layout(partial(find_eth3d, visible=True), read_visible_disparity),
    "booster": Layout(find_booster, read_booster_disparity),
    "spring_stereo": Layout(find_spring_stereo, read_spring_disparity),
}
LAYOUTS = FLOW_LAYOUTS | STEREO_LAYOUTS


def _beside(path: Path, ending: str, first: str, second: str) -> MatchingFiles:
    """Take images whose names differ from the ground truth's in their endings."""
    stem = path.name.removesuffix(ending)
    return MatchingFiles(path.with_name(stem + first), path.with_name(stem + second), (path,))


def _below_all(root: Path, folder: str, pattern: str) -> list[Path]:
    """List files below `folder`, which lies in root or in a sub-folder of it."""
    return sorted(
        path
        for below in (root / folder, *root.glob(f"*/{folder}"))
        for path in find_files(below, f"**/{pattern}")
    )


def _in_place_of(path: Path, folder: str, other: str) -> Path:
    """Replace one folder on the way to a path, the last of that name."""
    before, _, after = path.as_posix().rpartition(f"/{folder}/")
    return Path(before) / other / after
