"""This computer: what is installed, what it can do, what a step costs on it."""
