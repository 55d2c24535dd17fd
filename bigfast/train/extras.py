"""The packages that training needs beyond torch and NumPy: the extra `bigfast[train]`."""

from __future__ import annotations

from importlib.util import find_spec


def require(*packages: str) -> None:
    """Raise ModuleNotFoundError, with the command that helps, if one of `packages` is missing."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(
            f"training needs {', '.join(missing)}: pip install 'bigfast[train]'", name=missing[0]
        )
