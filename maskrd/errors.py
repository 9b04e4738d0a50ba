"""The one exception type meant for the user's eyes."""


class MaskrdError(Exception):
    """Something the user can put right. The message names what is wrong, where, and the remedy.

    The command line prints it without a traceback and exits with code 1.
    """


FAULTS_NAMED = 5


def describe_fault(error: Exception) -> str:
    """What is wrong with the content of a file, key by key where pydantic found it, in one line."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error) or type(error).__name__
    faults = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
    texts = [f"{key}: {text}" if key else text for key, text in faults]
    return "; ".join(texts[:FAULTS_NAMED]) + ("; ..." if len(texts) > FAULTS_NAMED else "")
