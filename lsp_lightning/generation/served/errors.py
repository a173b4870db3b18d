"""Errors of a rollout server, one line each."""


class EngineError(Exception):
    """The rollout server cannot be used for this run.

    Args:
        cause: what is wrong and where.
        remedy: what to do about it.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"rollouts: {cause}; {remedy}")
        self.cause = cause


class EngineLost(EngineError):
    """The server does not answer, is failing, or has lost the adapter of the run."""

    def __init__(self, cause: str) -> None:
        remedy = "check the server's log, restart it if needed, and resume from the last checkpoint"
        super().__init__(cause, remedy)


class BadReply(EngineError):
    """The server sent an answer that must not be trained on."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, "the answer was not used; check which server runs at this url")


class Refused(EngineError):
    """The server refused a request.

    Args:
        status: HTTP status code.
        said: the server's reason, one short line.
        url: the URL of the request.
    """

    def __init__(self, status: int, said: str, url: str) -> None:
        super().__init__(f"{url} refuses a request ({status}: {said})", "see the server's log")
        self.status = status
        self.said = said
