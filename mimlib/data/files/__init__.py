"""Files in, arrays out: one reader per format."""
