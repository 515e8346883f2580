"""The version that every part of the mesh reports."""

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The installed distribution's version, or ``0+source`` when run from an uninstalled tree."""
    try:
        return version("ragmesh")
    except PackageNotFoundError:
        return "0+source"


VERSION = package_version()
