"""What can be wrong with a rollout server, in one line each."""


class EngineError(Exception):
    """The rollout server is of no use to this run.

    Args:
        cause: what is wrong and where.
        remedy: what to do about it.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"rollouts: {cause}; {remedy}")
        self.cause = cause


class EngineLost(EngineError):
    """It is gone, or does not answer in time: what it knew of the run is lost too."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            cause,
            "the last checkpoint is whole: start the server and resume from it, or set "
            "model.rollouts.on_loss to local",
        )


class BadReply(EngineError):
    """It answers, but with something that must not be trained on."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, "nothing of it is used; check which server listens there")


class Refused(EngineError):
    """It says no to a request.

    Args:
        status: of HTTP.
        said: its reason, short.
        where: the url that was asked.
    """

    def __init__(self, status: int, said: str, where: str) -> None:
        super().__init__(f"{where} refuses a request ({status}: {said})", "see the server's log")
        self.status = status
        self.said = said
