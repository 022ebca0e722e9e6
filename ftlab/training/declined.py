"""How a shortcut says that it does not apply."""


class NotApplicable(Exception):
    """A shortcut is not taken; says why. What it stands for is computed as without it."""
