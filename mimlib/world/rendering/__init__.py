"""How a furnished room is seen: cameras, ray casting, shading, ground truth."""
