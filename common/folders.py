"""Folders of this project on the machine of its user."""

import os
from pathlib import Path


def user_folder() -> Path | None:
    """Returns this project's folder in the user's cache; None without a home folder.

    >>> user_folder().name
    'symphony-equijump'
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache") / "symphony-equijump"
    except RuntimeError:  # There is no home folder.
        return None
