"""Where batches come from: photographs, image folders and the embedded world, as sources.

batches: what a source yields | order: which image and which random numbers a step gets |
source: the workers, and sets in memory | mixture: several sources as one | files: one reader per
format | transforms: crops and colors | then a room for each kind of ground truth.
"""
