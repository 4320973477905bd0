"""Files of palette tokens: their index, and reading them."""
