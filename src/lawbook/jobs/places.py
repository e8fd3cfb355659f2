"""Where lawbook keeps what it makes: verdicts and the index of the book."""

import os
from pathlib import Path


def home():
    """The folder of the records: LAWBOOK_HOME, or .lawbook in the user's home folder."""
    return Path(os.environ.get("LAWBOOK_HOME") or Path.home() / ".lawbook")
