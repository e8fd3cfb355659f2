"""Objects that a notebook can show. The face that draws them sets `Shown.render`; without it their plain text is shown."""

from collections.abc import Callable
from typing import Any, ClassVar


class Shown:
    render: ClassVar[Callable[[Any], str] | None] = None

    def _repr_html_(self):
        return Shown.render(self) if Shown.render else None
