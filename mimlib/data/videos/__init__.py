"""Videos with masks or tracks."""
