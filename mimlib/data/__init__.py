"""Where batches come from: photographs, image folders and the embedded world, as sources.

batches: what a source yields | order: which image and which random numbers a step gets |
transforms: crops, flips and the evaluation view | images: reading folders and files |
photos: real photographs that come with installed packages | sources: configs and sources.
"""
