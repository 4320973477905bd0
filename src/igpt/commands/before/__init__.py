"""The verbs of what comes before training: configs, images, palettes, tokens."""
