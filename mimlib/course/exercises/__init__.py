"""Exercises of the lessons, with the mistakes that are recognized."""
