"""mimlib: six methods of self-supervised vision, from a laptop lesson to full-scale training."""

import os

__version__ = "0.1.0"

# Threads of torch that wait for each other give way after some microseconds, not milliseconds.
# Measured on two cores: a few per cent slower alone, several times faster beside another busy
# process. It counts if mimlib is imported before torch.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

# Large tensors of the CPU in pages of 2 MiB, not 4 KiB, where the kernel offers them (Linux): a
# fifth of a step of CroCo-B is taking the memory of gradients anew. Measured on one core: a tenth
# faster, as much memory. It counts if mimlib is imported before the first tensor is made.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
