"""How many random examples a test tries."""

from hypothesis import settings


def examples(count):
    """Return `count`, or the share of it that the profile of hypothesis leaves where a processor is emulated."""
    return max(1, count * settings.default.max_examples // 100)
