"""The one exception type meant for the user's eyes."""


class MaskrdError(Exception):
    """Something the user can put right. The message names what is wrong, where, and the remedy.

    The command line prints it without a traceback and exits with code 1.
    """
