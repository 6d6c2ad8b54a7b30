"""Panoramas of overlapping fields: registration, alignment, exposure and composition."""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    found = _load(name)
    from petroscope.view.help import documented

    return documented(found)
