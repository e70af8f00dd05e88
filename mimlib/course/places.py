"""Where things lie, from whichever folder a kernel was started in."""
