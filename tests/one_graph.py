"""Methods that torch.compile turns into one graph, in a process of its own.

The shape checks of the other tests break compilation.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch


def assert_one_graph(code, *names):
    """Run code that calls `compare` for each of these names, which are its arguments."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("is one graph") == len(names)


def compare(name, method, draw_views, parameters, num_batches=2, rtol=1e-3):
    """Loss and gradients, compiled and not; only the first batch may compile."""
    torch.set_num_threads(1)
    parameters = list(parameters)
    compiled = torch.compile(method, fullgraph=True, backend="aot_eager")
    for seed in range(num_batches):
        views = draw_views(method, seed=seed)
        method.zero_grad()
        plain = method(views).loss
        plain.backward()
        expected = [p.grad.clone() for p in parameters]
        method.zero_grad()
        with torch.compiler.set_stance("fail_on_recompile" if seed else "default"):
            loss = compiled(views).loss
            loss.backward()
        torch.testing.assert_close(loss, plain)
        for parameter, gradient in zip(parameters, expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=rtol, atol=1e-6)
    print(name, "is one graph")
