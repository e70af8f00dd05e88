"""mimlib: six methods of self-supervised vision, from a laptop lesson to full-scale training."""

import os

__version__ = "0.1.0"

# Threads of torch that wait for each other give way after some microseconds, not milliseconds.
# Measured on two cores: a few per cent slower alone, several times faster beside another busy
# process. It counts if mimlib is imported before torch.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
