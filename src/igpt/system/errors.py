"""Errors of the user's words and files, and exit codes."""

LOST = 76  # exit code of `igpt fit` where `LossGuard` stopped it


class UserError(Exception):
    """A bad option, a missing file, a wrong shape: exit code 2 and one line, which names it and says what to do."""


class UserErrors(UserError):  # noqa: N818  the plural of UserError
    """Several of them; each line of the message stands for one."""

    def __init__(self, problems: list[UserError]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))

    def __reduce__(self) -> tuple[type["UserErrors"], tuple[list[UserError]]]:
        """As it was made, so that it comes whole from another process."""
        return UserErrors, ([UserError(line) for line in str(self).split("\n")],)


def last_line(error: BaseException) -> str:
    """The last line of an error's text, where torch says what is wrong; its class where there is no text."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
