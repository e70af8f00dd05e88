"""What several claims name: metrics, floors, a margin."""

DEPTH = "depth RMSE, fine-tuned on 64 labels [m]"  # of 512, pre-training adds less
OBJECTS = "object accuracy, frozen"
PROBE = "semantic probe accuracy, frozen"
STEP = "pre-training step [ms per image]"
# Settings to be beaten: the network as it was drawn, an answer that never sees the image.
FLOORS = {name: {"NETWORK": name} for name in ("untrained", "blind")}
FLAT = {"margin": 0.02, "higher_is_better": False}  # metres of depth RMSE that are no difference
