"""The verbs of what comes before training: configs, images, palettes, tokens; and completion in the shell."""
