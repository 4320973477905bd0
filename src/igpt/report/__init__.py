"""One page about finished runs: `gather` reads run folders, `findings` judges them, `page` and `text` write them down.

Everything between `gather` and the files written is a pure function of records (`records.py`), and every number on the
page comes from a file of a run or from the paper (`published.py`).
"""
