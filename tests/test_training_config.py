"""What a run may be told, and on which device it runs."""

import pytest
import torch
from training_toys import config

from mimlib.training.config import TrainConfig, pick_device
from mimlib.training.precision import check_threads, numeric_mode, resolve_precision


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"steps": 0}, "steps is 0; expected 1 <= steps"),
        ({"batch_size": 8, "accumulation": 3}, "batch_size 8 cannot be cut into accumulation 3"),
        ({"base_rate": 0.0}, "base_rate is 0.0; expected 0 < base_rate"),
        ({"base_rate": float("nan")}, "base_rate is nan"),
        ({"warmup_steps": 6}, "warmup_steps is 6; expected 0 <= warmup_steps <= 5; the run"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"clip_norm": float("inf")}, "clip_norm is inf"),
        ({"schedule_steps": 4}, "schedule_steps is 4; expected 5 <= schedule_steps < inf; or 0"),
        ({"betas": (0.9, 1.0)}, "betas is"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0"),
        ({"schedule": "poly"}, "schedule is 'poly'; choose one of cosine, linear"),
        ({"precision": "float16"}, "precision is 'float16'; choose one of auto, float32, bfl"),
        ({"keep": 0}, "keep is 0"),
        ({"log_every": 0}, "log_every is 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(changes, words):
    with pytest.raises(ValueError, match="^" + words.replace("(", "\\(")):
        config(**changes)


def test_peak_rate_scales_with_the_images_of_a_step():
    # MAE: base 1.5e-4 at 4096 images is 2.4e-3
    run = TrainConfig(steps=1, batch_size=64, base_rate=1.5e-4)
    assert run.peak_rate(num_ranks=64) == pytest.approx(2.4e-3)


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    for unknown in ("gpu", "meta", "cuda:x", ""):
        with pytest.raises(ValueError, match="expected auto, cpu, cuda"):
            pick_device(unknown)


def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="sees 0 GPUs; use auto or cpu"):
        pick_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no Apple GPU; use auto or cpu"):
        pick_device("mps")
    assert pick_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("cuda") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="number 2, but torch .* sees 2 GPUs; .*fewer processes"):
        pick_device("cuda")


def test_too_many_threads():
    check_threads(1)
    with pytest.raises(ValueError, match="threads is 100000, but this machine has"):
        check_threads(100_000)


def test_bfloat16_is_chosen_only_where_the_processor_has_it(monkeypatch):
    cpu = torch.device("cpu")
    assert resolve_precision("bfloat16", cpu) is torch.bfloat16
    for flags, expected in [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "amx_fp16": True}, torch.float32),
        ({}, torch.float32),
    ]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags, raising=False)
        assert resolve_precision("auto", cpu) is expected


@pytest.mark.parametrize("error,chosen", [(1e-7, "medium"), (4e-3, "highest")])
def test_medium_precision_is_used_only_if_its_numbers_are_float32(monkeypatch, error, chosen):
    """A CPU that answers "medium" with rounded products keeps full precision."""
    multiply = torch.Tensor.__matmul__

    def rounded(left, right):
        product = multiply(left.double(), right.double()).to(left.dtype)  # on every processor
        medium = torch.get_float32_matmul_precision() == "medium"
        return product * (1 + error) if medium and product.dtype is torch.float32 else product

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    with numeric_mode(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == chosen


def test_numeric_mode_leaves_no_trace():
    torch.manual_seed(3)
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    with pytest.raises(KeyError), numeric_mode(torch.device("cpu"), threads=1):
        torch.rand(5)
        raise KeyError
    after = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
