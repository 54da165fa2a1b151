"""What words a transcript has, for comparing it with what was said."""

import re


def plain(text: str) -> str:
    """Lower case, no punctuation, hyphens and line ends as spaces."""
    return " ".join(re.sub(r"[^a-z0-9'\s]", "", text.lower().replace("-", " ")).split())
