"""How a connection ends: close codes, last words, and refusals as WebSocket clients see them."""

from vegamite_api.core.refusal import RefusedError

POLICY, UNSUPPORTED, TOO_BIG, RESTART, TRY_LATER = 1008, 1003, 1009, 1012, 1013
"""Close codes of RFC 6455 and its registry: broke a rule, wrong kind of data, message too large, restart, full."""


class EndedError(Exception):
    """The connection ends: close code, reason, and the last messages to try to send."""

    def __init__(
        self, code: int, reason: str, messages: tuple[dict[str, object], ...] = ()
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.messages = messages


def error_body(error: RefusedError) -> dict[str, object]:
    """Return a refusal as WebSocket clients see it: code in capitals, message, parameter and what is allowed."""
    body: dict[str, object] = {"code": error.code.upper(), "message": error.detail}
    if error.parameter is not None:
        body["parameter"] = error.parameter
    if error.allowed is not None:
        body["allowed"] = error.allowed
    return body | error.extra


def only_ending(group: BaseExceptionGroup[EndedError]) -> EndedError:
    """Return the first ending in a group: the others came of it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, EndedError)
    return error
