"""Numbers and threads: which precision a device really computes in, and leaving no trace."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mimlib.places import num_cores
from mimlib.training.config import Precision

FLOAT32_ERROR = 1e-5  # relative; float32 products of depth 512 stay below 1e-6, bfloat16 gives 4e-3


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        flags = getattr(torch.cpu, "get_capabilities", dict)()
        return any(flags.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))
    return False


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """Turn `auto` into a number type; float16 is never chosen (on a CPU it is 5 times slower)."""
    if name == "auto":
        name = "bfloat16" if has_fast_bfloat16(device) else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def products_are_float32() -> bool:
    """Measure whether matrix products are float32, with matmul precision "medium" on this CPU.

    On processors without AMX "medium" only selects a faster float32 kernel (2.1 times on Zen 5);
    with AMX it may round to bfloat16. The name does not say which, so a product is compared with
    its float64 value.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 512, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    error = (left @ right).double().sub(exact).abs().max() / exact.abs().max()
    return float(error) < FLOAT32_ERROR


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Say whether every value is finite, waiting for the device once."""
    flags = [tensor.detach().isfinite().all() for tensor in tensors]
    return bool(torch.stack(flags).all())


def check_threads(threads: int) -> None:
    """Raise ValueError if more threads are asked for than this machine runs."""
    available = num_cores()
    if threads > available:
        raise ValueError(
            f"threads is {threads}, but this machine has {available} processors; "
            f"expected 0 to {available}"
        )


@contextmanager
def numeric_mode(device: torch.device, threads: int = 0) -> Iterator[None]:
    """Set matmul precision and threads, and put them and the random state back at the end."""
    precision, num_threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            if threads:
                torch.set_num_threads(threads)
            if device.type == "cpu":
                torch.set_float32_matmul_precision("medium")
                if not products_are_float32():
                    torch.set_float32_matmul_precision(precision)
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            torch.set_num_threads(num_threads)
