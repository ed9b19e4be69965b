"""The one error for input that a client got wrong: which parameter, what is wrong, and what is allowed."""

MAX_SHOWN = 60


class RefusedError(ValueError):
    """Input that is refused: `code` is stable, `parameter` names what was wrong, `allowed` says what would be right."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        parameter: str | None = None,
        allowed: str | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.parameter = parameter
        self.allowed = allowed
        self.extra = extra or {}


def invalid(parameter: str, detail: str, allowed: str) -> RefusedError:
    """Return the refusal of one parameter's value."""
    return RefusedError("invalid_parameter", detail, parameter=parameter, allowed=allowed)


def shown(text: str) -> str:
    """Return foreign text fit for an error or a log: at most 60 characters, control characters escaped."""
    cut = text[:MAX_SHOWN]
    safe = "".join(
        char
        if char.isprintable()
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in cut
    )
    return safe + "…" if len(text) > MAX_SHOWN else safe
