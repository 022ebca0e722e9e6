"""The errors that a person can mend: one line what, one line how."""

import re

_PLACE = re.compile(
    r"(?P<place>(?:--[\w-]+ [^:]+"  # an option with its value
    r"|[^:]*[^:\s]\.[A-Za-z]\w{0,8}(?::\d+)?(?:, (?:row|line) \d+)?"  # a file, its line or row
    r"(?:: [\w-]+(?:\.[^\s:]+(?: from [^\s:]+)*)*)?))"  # and the keys in it
    r": (?=\S)")


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

    @property
    def place(self) -> str:
        """The beginning of `what` that says where: `study.yaml:3: techniques.lora`; empty without one."""
        found = _PLACE.match(self.what)
        return found["place"] if found else ""

    @property
    def problem(self) -> str:
        """The rest of `what`."""
        return self.what[len(self.place):].removeprefix(": ")

    def __reduce__(self) -> tuple[type["FtlabError"], tuple[str, str]]:
        return type(self), (self.what, self.mend)


class InputError(FtlabError):
    """Input that cannot be used: a study file, an option, a data file (exit code 2)."""


class Incompatible(InputError):
    """A technique, backbone, data module or task does not go with another; says why."""


class GuardFailed(FtlabError):
    """A run did something that would make its result wrong; that run alone fails."""
