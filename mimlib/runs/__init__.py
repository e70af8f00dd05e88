"""From a named run to a trained network: build, launch, show, evaluate."""
