"""Where downloaded and parsed data is kept between commands."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns the user's folder for downloaded and parsed data; it may not exist.

    >>> cache_folder().parts[-2:]
    ('symphony-equijump', 'data')
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "symphony-equijump" / "data"
