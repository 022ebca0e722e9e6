"""The errors that a person can mend: one line what, one line how."""


class FtlabError(Exception):
    """Something went wrong that has a known reason.

    Args:
        what: what is wrong and where, one line.
        mend: how to mend it, one line; may be empty where nothing can be advised.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(f"{what}\n  {mend}" if mend else what)
        self.what = what
        self.mend = mend

    def __reduce__(self) -> tuple[type["FtlabError"], tuple[str, str]]:
        return type(self), (self.what, self.mend)


class InputError(FtlabError):
    """Input that cannot be used: a study file, an option, a data file (exit code 2)."""


class Incompatible(InputError):
    """A technique, backbone, data module or task does not go with another; says why."""


class GuardFailed(FtlabError):
    """A run did something that would make its result wrong; that run alone fails."""
