"""How well a network does, measured on data: probes, k-NN, scores of tasks, cross-view places."""
