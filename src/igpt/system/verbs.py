"""The verbs of the command line."""

VERBS = {
    "palette": "build a colour palette from the training pixels of any data module",
    "check": "read every image of any data module once, and list what is broken",
    "curate": "choose the images near a reference set, each once and none of a test set",
    "tokenize": "write any data module's images as palette tokens, to train from",
    "init": "make a palette and a config for a folder of your own pictures",
    "configs": "list the configs that come with igpt, or copy them",
    "fit": "train a model from a config",
    "tune": "try learning rates in turn, and write the config with the best",
    "scale": "train several sizes at equal compute, and fit how the best one grows",
    "validate": "loss on the validation split",
    "test": "loss on the test split",
    "predict": "write features of every layer for every split",
    "probe": "accuracy of the features of every layer",
    "classify": "class and probability of picture files",
    "embed": "features of picture files, as arrays",
    "sample": "draw new images, or complete given ones",
    "surprise": "a picture of how surprising each pixel is",
    "evaluate": "how good a model's samples are, and whether they are copies",
    "import": "make a checkpoint from released weights",
    "export": "write a checkpoint for Hugging Face, or as safetensors",
    "runs": "list the runs of a folder, compare two, or remove one",
    "completion": "a script that has the shell complete verbs and options",
    "show": "a page in the browser: complete pictures, see surprise, classes and layers",
    "report": "one page of runs beside the published figures",
}
TRAINER_VERBS = ("fit", "validate", "test", "predict")
