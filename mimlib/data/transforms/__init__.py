"""One vocabulary of crops and colors."""
