"""What a pre-trained encoder is good for: probes, k-NN, fine-tuning, and how they are measured."""
