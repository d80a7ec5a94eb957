"""The error for what a user can put right."""


class InputError(ValueError):
    """A file, path or setting given by the user is missing or wrong.

    The message names it and says what was expected. The command lines in
    ``tools/`` print only the message; other errors keep their traceback.
    """
