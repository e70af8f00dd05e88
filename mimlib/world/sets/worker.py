"""One worker: `python -m mimlib.world.sets.worker JOB OUT` renders a run of groups into a file.

It writes one byte to the standard output per finished item.
"""

import json
import sys
from pathlib import Path

from mimlib.world.sets.cache import write_file
from mimlib.world.sets.chunks import render_here
from mimlib.world.sets.recipes import RECIPES
from mimlib.world.sets.workers import Job


def work(job: Job, out: Path) -> None:
    """Render a job into a file whose fields are named kind/field."""
    said = 0

    def tell(done: int, count: int) -> None:
        nonlocal said
        sys.stdout.write("." * (done - said))
        sys.stdout.flush()
        said = done

    recipe = RECIPES[job.recipe](**job.fields)
    rendered = render_here(recipe, job.first, job.count, tuple(job.kinds), progress=tell)
    fields = {f"{kind}/{name}": t for kind, part in rendered.items() for name, t in part.items()}
    write_file(out, fields)


if __name__ == "__main__":
    work(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]))
