"""Format numbers for the page."""

NO_VALUE = "\N{EN DASH}"


def percent(value: float | None) -> str:
    """Format a percentage with one decimal, or a dash if undefined."""
    return NO_VALUE if value is None else f"{value:.1f}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an s in the plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def change(value: float) -> str:
    """Format a difference of percentages with its sign."""
    # Round first to avoid "-0.0"; the minus sign is as wide as the plus sign.
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")
