"""Names that members of the families had in earlier versions: refused, since nothing reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlab.errors import InputError

RENAMED: Mapping[str, str] = {
    "form": "output_type",
    "attach": "bind",
    "outside": "export_code",
    "outside_names": "exported_names",
}
"""Today's name by the earlier one; it concerns the families whose base class has today's."""


class RefusesEarlierNames:
    """Shared by base classes: a subclass is refused where it would be called by an earlier name."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        earlier = {old: new for old, new in RENAMED.items() if hasattr(cls, old) and hasattr(cls, new)}
        if earlier:
            raise InputError(
                f"{cls.__module__}.{cls.__qualname__} defines {', '.join(earlier)}, which this version "
                "of ftlab does not read",
                f"rename: {', '.join(f'{old} to {new}' for old, new in earlier.items())}")
