"""Files as other programs write them: a reader says what is stored, or refuses it by name."""

import io
import struct
import zlib

import number_files
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mimlib.data.dense.label_maps import ADE20K_IDS, class_table, read_label_map
from mimlib.data.files import numbers
from mimlib.data.files.arrays import read_booster_disparity
from mimlib.data.files.listing import (
    files_by_stem,
    find_beside,
    read_names,
    spoken_lines,
    walk_files,
)
from mimlib.data.files.numbers import Dense
from mimlib.data.files.pictures import read_image, read_indices
from mimlib.data.images.configs import ImageFolderConfig
from mimlib.data.matching.source import MatchingFilesConfig
from mimlib.data.order import EndlessOrder
from mimlib.data.pairs.files import read_pair_list
from mimlib.data.pairs.rgbd import read_matrix
from mimlib.data.videos.frames import list_frames
from mimlib.data.videos.masks import MaskFiles

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")

# JPEGs that say how they lie


def segment(content):
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def exif(orientation, kind=3):
    """An Exif segment with an orientation of 16 (kind 3) or 32 bits (kind 4), high byte first."""
    value = struct.pack(">HH" if kind == 3 else ">I", *((orientation, 0)[: 5 - kind]))
    entry = struct.pack(">HHI", 274, kind, 1) + value
    return segment(b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + b"\0\0\0\0")


def xmp(inside=b""):
    description = b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' " + inside + b"/>"
    return segment(b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + description + b"</x:xmpmeta>")


HEADERS = {
    "nothing": b"",
    "Exif": exif(6),
    "Exif of 32 bits": exif(6, kind=4),
    "XMP": xmp(),
    "XMP that turns": xmp(b'tiff:Orientation="6"'),
    "XMP, then Exif": xmp() + exif(6),
    "Exif, then XMP": exif(8) + xmp(),
    "Exif without, then Exif": exif(1) + exif(6),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_jpegs_stand_as_pillow_has_them(tmp_path, header):
    columns = np.arange(60, dtype=np.uint8) * 4
    pixels = np.broadcast_to(columns[None, :, None], (40, 60, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=95)
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue()[:2] + header + buffer.getvalue()[2:])
    with Image.open(path) as image:
        upright = torch.from_numpy(np.array(ImageOps.exif_transpose(image))).movedim(-1, 0)
    ours = read_image(path)
    assert ours.shape == upright.shape
    assert (ours.int() - upright.int()).abs().max() <= 3  # two decoders


# Gray of few bits


def save_gray(path, rows, bits):
    """Write a PNG of 1, 2, 4, 8 or 16 bits a pixel by hand, as optimizers of PNGs do."""
    lines = b""
    for row in rows:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        lines += b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_ids_are_what_is_stored_with_any_number_of_bits(tmp_path, bits):
    rows = np.arange(12).reshape(3, 4) % min(2**bits, 12)
    path = save_gray(tmp_path / "a.png", rows, bits)
    assert read_indices(path).tolist() == rows.tolist()
    classes = read_label_map(path, class_table(ADE20K_IDS, (0, 255)))
    assert classes.tolist() == (rows - 1).tolist()


def test_a_video_keeps_its_objects_when_masks_differ_in_their_bits(tmp_path):
    rows = np.array([[0, 1, 2]])
    files = [save_gray(tmp_path / f"{i}.png", rows, bits) for i, bits in enumerate((8, 4, 2))]
    assert [mask.tolist() for mask in MaskFiles(files)] == [rows.tolist()] * 3


def test_disparities_of_few_bits_are_not_stretched(tmp_path):
    path = save_gray(tmp_path / "a.png", np.array([[0, 1, 15]]), 4)
    assert numbers.read_gray_disparity(path).values[..., 0].tolist() == [[0, 1, 15]]
    for wrong in (16, 1):
        with pytest.raises(ValueError, match="expected one channel of 8 bits"):
            numbers.read_gray_disparity(save_gray(tmp_path / "b.png", np.array([[0, 1]]), wrong))


def test_numbers_that_a_decoder_changes_are_refused(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 3\n\0\1\2")
    with pytest.raises(ValueError, match=r"a.pgm has numbers up to \[3\]; save it as a PNG"):
        read_indices(tmp_path / "a.pgm")
    (tmp_path / "b.pgm").write_bytes(b"P5 3 1 255\n\0\1\2")
    assert read_indices(tmp_path / "b.pgm").tolist() == [[0, 1, 2]]
    gray = Image.fromarray(np.array([[0, 1, 200]], dtype=np.uint8))
    gray.save(tmp_path / "c.tif", tiffinfo={262: 0})
    with pytest.raises(ValueError, match="c.tif is stored inverted, 0 is white; save it as a PNG"):
        read_indices(tmp_path / "c.tif")


# Headers and bytes too many

VALUES = np.arange(6, dtype="<f4").reshape(2, 3) + 1


@pytest.mark.parametrize("header", [
    b"Pf\n3 2\n-1.0\n", b"Pf\r\n3 2\r\n-1.0\r\n", b"Pf 3 2 -1 ", b"Pf\n3\n2\n-1e0\n",
    b"Pf\n3 2\n-1.000000 \n", b"Pf \n 3  2 \n-.5\n", b"Pf\n3 2\n-1\r\n",
])  # fmt: skip
def test_pfm_headers_of_other_programs(tmp_path, header):
    path = tmp_path / "a.pfm"
    path.write_bytes(header + VALUES[::-1].tobytes())
    assert numbers.read_pfm(path).tolist() == VALUES.tolist()
    high_first = header.replace(b"-", b"+")
    path.write_bytes(high_first + VALUES[::-1].astype(">f4").tobytes())
    assert numbers.read_pfm(path).tolist() == VALUES.tolist()


def test_numbers_that_begin_with_a_line_feed_are_no_header(tmp_path):
    """0x0A as the first byte of the numbers, after a header of one line feed."""
    first = np.frombuffer(b"\x0a\x0a\x0a\x40", dtype="<f4")
    (tmp_path / "a.pfm").write_bytes(b"Pf\n1 1\n-1\n" + first.tobytes())
    assert numbers.read_pfm(tmp_path / "a.pfm").item() == first[0]


@pytest.mark.parametrize("change", [b"", b"\n", b"\0" * 12], ids=["cut", "line", "more"])
def test_files_of_another_length_than_their_header_says_are_refused(tmp_path, change):
    dense = Dense(torch.ones(2, 3, 2), torch.ones(2, 3, dtype=torch.bool))
    number_files.write_flo(tmp_path / "a.flo", dense)
    number_files.write_pfm(tmp_path / "a.pfm", torch.from_numpy(VALUES))
    np.save(tmp_path / "a.npy", VALUES)
    readers = (numbers.read_flo, numbers.read_pfm, read_booster_disparity)
    for path, read in zip(("a.flo", "a.pfm", "a.npy"), readers):
        whole = (tmp_path / path).read_bytes()
        (tmp_path / path).write_bytes(whole + change if change else whole[:-1])
        with pytest.raises(ValueError, match=path):
            read(tmp_path / path)
        (tmp_path / path).write_bytes(b"")
        with pytest.raises(ValueError, match=path):
            read(tmp_path / path)


# Names in folders and lists


def plant(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_what_systems_leave_is_not_read(tmp_path):
    left = ("._a.jpg", "Thumbs.db", ".DS_Store", "__MACOSX/b/._a.jpg", "__MACOSX/c.jpg",
            "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "desktop.ini")  # fmt: skip
    plant(tmp_path, *left)
    for name in ("cat/a.JPG", "dog/b.Png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    source = ImageFolderConfig(root=str(tmp_path), size=8, labels=True).build()
    assert [source.path(i).removeprefix(f"{tmp_path}/") for i in range(len(source))] == [
        "cat/a.JPG", "dog/b.Png"]  # fmt: skip
    assert source.first(2).labels.tolist() == [0, 1]
    assert set(walk_files(tmp_path, (".jpg",))) == {"cat/a.JPG"}


def test_label_maps_and_frames_beside_hidden_files_and_in_capitals(tmp_path):
    plant(tmp_path, "images/A.JPG", "images/b.jpeg", "images/._A.JPG")
    plant(tmp_path, "labels/A.PNG", "labels/b.png", "labels/._A.PNG", "labels/._b.png")
    assert [tuple(f) for f in find_beside(tmp_path, "images/*", "labels/*.png")] == [
        ("images/A.JPG", "labels/A.PNG"), ("images/b.jpeg", "labels/b.png")]  # fmt: skip
    plant(tmp_path, "video/0.JPG", "video/1.jpg", "video/._0.JPG")
    assert [path.name for path in list_frames(tmp_path / "video")] == ["0.JPG", "1.jpg"]
    plant(tmp_path, "data/1_img1.ppm", "data/1_img2.ppm", "data/1_flow.flo", "data/._1_flow.flo")
    chairs = MatchingFilesConfig(root=str(tmp_path), layout="flying_chairs", size=(8, 8))
    assert len(chairs.build()) == 1
    plant(tmp_path, "c.png", "c.jpg", "d.tif")
    found = {stem: path for stem, path in files_by_stem(tmp_path).items() if "/" not in path}
    assert found == {"c": "c.jpg", "d": "d.tif"}  # of several, the first format


def test_lists_as_windows_writes_them(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n  # comment\r\ntwo.JPG 1\r\n")
    assert read_names(path) == ["one", "two"]
    assert list(spoken_lines(path)) == [(1, "one"), (4, "two.JPG 1")]
    path.write_bytes(b"\xef\xbb\xbfmy dog 1.jpg\tmy dog 2.jpg\r\n")
    assert read_pair_list(path) == [("my dog 1.jpg", "my dog 2.jpg")]
    path.write_bytes(b"\xef\xbb\xbf1 0\r\n0 1\r\n  \r\n")
    assert read_matrix(str(path), 2).tolist() == [[1, 0], [0, 1]]
    path.write_bytes(b"1 nan\n0 1\n")
    with pytest.raises(ValueError, match="not finite"):
        read_matrix(str(path), 2)


def test_the_split_of_the_chairs_may_begin_with_a_byte_order_mark(tmp_path):
    for number in (1, 2):
        plant(tmp_path, *(f"data/{number}_{end}" for end in ("img1.ppm", "img2.ppm", "flow.flo")))
    (tmp_path / "chairs_split.txt").write_bytes(b"\xef\xbb\xbf1\r\n2\r\n")
    for part in ("train", "val"):
        config = MatchingFilesConfig(
            root=str(tmp_path), layout=f"flying_chairs_{part}", size=(8, 8)
        )
        assert len(config.build()) == 1
    (tmp_path / "chairs_split.txt").write_text("1\n")
    with pytest.raises(ValueError, match="names the part of 1 pairs, but .* number 2"):
        config.build()


def test_a_set_of_no_images_is_refused():
    with pytest.raises(ValueError, match="a set of 0 images"):
        EndlessOrder(0, seed=0)
