"""What the methods minimize."""
