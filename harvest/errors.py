"""Errors that tell the user what was given, what is needed and what to do next."""


class UserError(Exception):
    """Something the user gave cannot work; the message is one line that says what to do.

    The command line prints the message alone and exits with 2. Any other exception is a bug of ours: it keeps its
    traceback and exits with 1.
    """
