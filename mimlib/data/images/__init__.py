"""Images, with or without a class."""
