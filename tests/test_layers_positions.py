"""Position tables."""

import pytest
import torch

from mimlib.layers.positions import look_up, resize_table, sincos_table

# Values of the official table, 14 x 14 grid, width 768, patch at row 5 and column 9.
OFFICIAL = {
    0: 0.412118, 1: 0.748847, 191: 0.000944, 192: -0.911130, 193: -0.662743, 383: 1.0,
    384: -0.958924, 385: -0.998573, 575: 0.000525, 576: 0.283662, 767: 1.0,
}  # fmt: skip


def matches_official(row):
    return all(abs(float(row[i]) - value) < 1e-6 for i, value in OFFICIAL.items())


def test_the_table_is_the_official_one_and_its_transpose_is_not():
    table = sincos_table((14, 14), 768, class_token=True)
    assert table.dtype == torch.float32 and table.shape == (197, 768)
    assert table[0].abs().max() == 0
    assert matches_official(table[1 + 5 * 14 + 9])
    assert not matches_official(table[1 + 9 * 14 + 5])
    assert table.double().sum() == pytest.approx(69594.4938, abs=1e-2)
    decoder = sincos_table((14, 14), 512, class_token=True)
    assert decoder.double().sum() == pytest.approx(46340.3331, abs=1e-2)


def test_a_grid_that_is_not_square():
    table = sincos_table((2, 3), 8).reshape(2, 3, 8)
    assert torch.equal(table[0, :, 4:], table[0, :1, 4:].expand(3, 4)), "row half varies by column"
    assert torch.equal(table[:, 0, :4], table[:1, 0, :4].expand(2, 4)), "column half varies by row"
    assert float(table[1, 2, 0]) == pytest.approx(0.909297, abs=1e-6)  # sin 2
    assert float(table[1, 2, 4]) == pytest.approx(0.841471, abs=1e-6)  # sin 1


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 30 .* use 28 or 32"):
        sincos_table((4, 4), 30)


@pytest.mark.parametrize("num_extra", [0, 1])
def test_resizing_keeps_the_class_row_and_a_linear_ramp(num_extra):
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    ramp = torch.stack([row, column], dim=-1).reshape(64, 2)
    table = torch.cat([torch.full((num_extra, 2), 7.0), ramp])
    resized = resize_table(table, (8, 8), (16, 12))
    assert torch.equal(resized[:num_extra], table[:num_extra])
    inner = resized[num_extra:].reshape(16, 12, 2)[4:12, 3:9]
    expected_row = (torch.arange(16.0) + 0.5) / 2 - 0.5
    expected_column = (torch.arange(12.0) + 0.5) * 8 / 12 - 0.5
    # A bicubic kernel reproduces straight lines up to its rounding of taps (a = -0.75).
    assert (inner[..., 0] - expected_row[4:12, None]).abs().max() < 0.05
    assert (inner[..., 1] - expected_column[3:9]).abs().max() < 0.05


def test_resizing_to_the_same_grid_changes_nothing_and_a_wrong_table_is_refused():
    table = torch.randn(17, 4)
    assert torch.equal(resize_table(table, (4, 4), (4, 4)), table)
    with pytest.raises(ValueError, match="table of 15 rows .* grid of 4x4; expected 16"):
        resize_table(table[:15], (4, 4), (8, 8))


def test_rows_are_looked_up_by_patch():
    table, index = torch.randn(10, 4), torch.tensor([[0, 8], [3, 2]])
    with_class = look_up(table, index, class_token=True)
    assert torch.equal(with_class[0], table[[0, 1, 9]])
    assert torch.equal(with_class[1], table[[0, 4, 3]])
    assert torch.equal(look_up(table, index, class_token=False)[1], table[[3, 2]])
