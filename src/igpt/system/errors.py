"""The one exception that means "the user's words or files are off" (exit code 2, one line, no traceback)."""

LOST = 76  # exit code of `igpt fit` where `LossGuard` stopped it; no error of the words, and nothing to go on from


class UserError(Exception):
    """Bad option, missing file, wrong shape. The message names the option or file and says what to do about it."""


class UserErrors(UserError):  # noqa: N818  the plural of UserError
    """Several independent things are off; each line of the message stands for one of them."""

    def __init__(self, problems: list[UserError]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))


def last_line(error: BaseException) -> str:
    """The last line of an error's text, where torch says what is off; the error's class where there is no text."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
