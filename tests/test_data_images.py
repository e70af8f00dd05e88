import numpy as np
import pytest
import torch
from PIL import Image

from mimlib.data.files.pictures import read_image
from mimlib.data.images.folder import ImageFolder, class_names

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")

RED = (200, 30, 10)


def gradient(height=12, width=16):
    """A smooth color picture, [H, W, 3] uint8."""
    row, column = np.mgrid[0:height, 0:width]
    gray = np.full_like(row, 90)
    return np.stack([row * 10, column * 9, gray], axis=2).astype(np.uint8)


def write(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gradient() if pixels is None else pixels).save(path, **options)
    return path


def assert_rgb(image, height=12, width=16):
    assert image.shape == (3, height, width)
    assert image.dtype == torch.uint8


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "PNG"])
def test_lossless_formats_give_the_pixels_back(tmp_path, ending):
    image = read_image(write(tmp_path / f"picture.{ending}"))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), gradient())


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "JPEG", "webp"])
def test_lossy_formats_give_nearly_the_pixels_back(tmp_path, ending):
    image = read_image(write(tmp_path / f"picture.{ending}", quality=95))
    assert_rgb(image)
    error = image.permute(1, 2, 0).numpy().astype(int) - gradient()
    assert np.abs(error).mean() < 4


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "bmp", "webp"])
def test_gray_becomes_three_equal_channels(tmp_path, ending):
    image = read_image(write(tmp_path / f"gray.{ending}", gradient()[..., 1]))
    assert_rgb(image)
    assert (image[0].int() - image[1].int()).abs().max() <= 1
    assert abs(image[0].float().mean() - gradient()[..., 1].mean()) < 3


def test_one_bit_images(tmp_path):
    image = read_image(write(tmp_path / "bit.png", gradient()[..., 1] > 70))
    assert_rgb(image)
    assert set(image.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_transparent_pixels_show_white(tmp_path, ending):
    pixels = np.empty((8, 8, 4), dtype=np.uint8)
    pixels[:] = (*RED, 255)
    pixels[:4, :, 3] = 0
    pixels[6:, :, 3] = 128
    options = {"lossless": True} if ending == "webp" else {}
    image = read_image(write(tmp_path / f"clear.{ending}", pixels, **options))
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 5, 5].tolist() == list(RED)
    half = [(c * 128 + 255 * 127) / 255 for c in RED]
    assert np.allclose(image[:, 7, 7].tolist(), half, atol=1)


def test_gray_with_alpha(tmp_path):
    pixels = np.zeros((6, 6, 2), dtype=np.uint8)
    pixels[:, 3:, 1] = 255
    image = read_image(write(tmp_path / "la.png", pixels))
    assert image[:, 0, 0].tolist() == [255] * 3
    assert image[:, 0, 5].tolist() == [0] * 3


def test_palettes(tmp_path):
    picture = Image.fromarray(gradient()).quantize(256)
    picture.save(tmp_path / "palette.png")
    image = read_image(tmp_path / "palette.png")
    assert_rgb(image)
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - gradient()).mean() < 8


def test_palette_with_a_transparent_entry(tmp_path):
    picture = Image.new("P", (5, 5), 1)
    picture.putpalette([0, 0, 0, *RED])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "palette.png", transparency=0)
    image = read_image(tmp_path / "palette.png")
    assert image[:, 0, 0].tolist() == [255] * 3
    assert image[:, 2, 2].tolist() == list(RED)


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_cmyk(tmp_path, ending):
    Image.new("RGB", (16, 12), RED).convert("CMYK").save(tmp_path / f"print.{ending}")
    image = read_image(tmp_path / f"print.{ending}")
    assert_rgb(image)
    assert np.allclose(image.float().mean((1, 2)), RED, atol=6)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path, ending):
    values = np.linspace(0, 65535, 192).reshape(12, 16).astype(np.uint16)
    image = read_image(write(tmp_path / f"deep.{ending}", values))
    assert_rgb(image)
    assert np.abs(image[1].numpy() - values / 257).max() <= 0.51
    assert torch.equal(image[0], image[2])


def test_thirty_two_bit_integers_are_read_as_sixteen_bit_values(tmp_path):
    values = np.array([[0, 257, 65535, 70000]], dtype=np.int32)
    image = read_image(write(tmp_path / "deep.tif", values))
    assert image[0].tolist() == [[0, 1, 255, 255]]


def test_float_images_are_refused_with_a_reason(tmp_path):
    path = write(tmp_path / "float.tif", np.ones((4, 4), dtype=np.float32))
    with pytest.raises(ValueError, match="no agreed range"):
        read_image(path)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_exif_orientation_is_applied(tmp_path, ending, orientation):
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = 255  # a white corner at the top left
    undo = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        6: lambda x: np.rot90(x, 1),
        8: lambda x: np.rot90(x, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo(upright))
    path = write(tmp_path / f"turned.{ending}", stored, exif=exif)
    image = read_image(path)
    assert_rgb(image, 16, 32)
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - upright).mean() < 8


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp", "tif"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (1, 1)])
def test_one_pixel_images(tmp_path, ending, shape):
    image = read_image(write(tmp_path / f"dot.{ending}", np.full(shape, 120, dtype=np.uint8)))
    assert_rgb(image, *shape[:2])
    assert (image.int() - 120).abs().max() <= 3


def test_without_torchvisions_decoder_pillow_reads_the_same(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / "a.jpg", exif=exif, quality=90)
    with_torchvision = read_image(path)
    monkeypatch.delattr("torchvision.io.decode_jpeg")
    assert_rgb(with_torchvision, 16, 12)
    assert (read_image(path).int() - with_torchvision.int()).abs().max() <= 2


def test_wrong_ending_does_not_matter(tmp_path):
    write(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(read_image(tmp_path / "a.jpg").permute(1, 2, 0).numpy(), gradient())
    write(tmp_path / "b.jpg").rename(tmp_path / "b.png")
    assert_rgb(read_image(tmp_path / "b.png"))


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif"])
def test_truncated_files_are_refused_by_name(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = write(tmp_path / f"cut.{ending}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=f"cannot read .*cut.{ending}"):
        read_image(path)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]
)
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_what_is_no_image_is_refused_by_name(tmp_path, content, ending):
    path = tmp_path / f"bad.{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot read .*bad.{ending}"):
        read_image(path)


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none.jpg: FileNotFoundError"):
        read_image(tmp_path / "none.jpg")


def test_folder_is_sorted_nested_and_skips_what_is_hidden(tmp_path):
    names = ["b/2.png", "b/1.PNG", "a/deep/er/x.jpg", "top.bmp", "a.png"]
    for name in [*names, "b/.hidden.png", ".git/y.png"]:
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    folder = ImageFolder(tmp_path)
    found = [folder.path(i).removeprefix(f"{tmp_path}/") for i in range(len(folder))]
    assert found == sorted(names)
    assert_rgb(read_image(folder.path(0)))


def test_folder_reads_names_beyond_ascii_and_follows_links(tmp_path):
    write(tmp_path / "real" / "caf\u00e9 \u6f22.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "circle").symlink_to(tmp_path / "set")
    folder = ImageFolder(tmp_path / "set")
    assert len(folder) == 1
    assert folder.path(0).endswith("link/caf\u00e9 \u6f22.png")
    assert_rgb(read_image(folder.path(0)))


def test_folder_errors(tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*nowhere"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is a file; name the folder"):
        ImageFolder(write(tmp_path / "one.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images.*the folder is empty"):
        ImageFolder(tmp_path / "empty")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("")
    (tmp_path / "texts" / "b.heic").write_text("")
    with pytest.raises(
        ValueError, match=r"expected files ending in .jpg.*found 2 others \(.heic, .txt"
    ):
        ImageFolder(tmp_path / "texts")


def test_labels_are_numbered_by_sorted_class_names(tmp_path):
    for name in ("n02/a.png", "n01/deep/b.png", "n03/c.png"):
        write(tmp_path / name)
    (tmp_path / "n00").mkdir()
    names = class_names(tmp_path)
    assert names == ("n00", "n01", "n02", "n03")
    assert ImageFolder(tmp_path).labels(names).tolist() == [1, 2, 3]


def test_images_without_a_class_are_named(tmp_path):
    write(tmp_path / "cat" / "a.png")
    write(tmp_path / "stray.png")
    with pytest.raises(ValueError, match="no known class: images outside any sub-folder"):
        ImageFolder(tmp_path).labels(("cat",))
    write(tmp_path / "dog" / "a.png")
    (tmp_path / "stray.png").unlink()
    with pytest.raises(ValueError, match="no known class: dog"):
        ImageFolder(tmp_path).labels(("cat",))
