"""What several claims name: metrics, floors, recipes."""

DEPTH = "depth RMSE, fine-tuned on 64 labels [m]"  # of 512, pre-training adds less
OBJECTS = "object accuracy, frozen"
PROBE = "semantic probe accuracy, frozen"
STEP = "pre-training step [ms per image]"
# Settings to be beaten: the network as it was drawn, the best answer that never sees the image.
FLOORS = {name: {"NETWORK": name} for name in ("untrained", "blind")}
MUON = {"train.optimizer": "muon", "train.base_rate": 2e-2}  # learns twice as fast, CHANGELOG
FLAT = {"margin": 0.02, "higher_is_better": False}  # metres of depth RMSE that are no difference
