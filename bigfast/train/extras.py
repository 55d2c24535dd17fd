"""What to say where a package beyond torch and NumPy is missing: the extra that brings it."""

from __future__ import annotations

from importlib.util import find_spec


def require(*packages: str, purpose: str = "training", extra: str = "train") -> None:
    """Raise ModuleNotFoundError, with the command that helps, if one of `packages` is missing."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{purpose} needs {', '.join(missing)}: pip install 'bigfast[{extra}]'",
            name=missing[0],
        )
