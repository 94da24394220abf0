"""Numbers as the page writes them."""

NO_VALUE = "\N{EN DASH}"


def percent(value: float | None) -> str:
    """Write a score in percent with one decimal, an undefined one as a dash."""
    return NO_VALUE if value is None else f"{value:.1f}"


def change(value: float) -> str:
    """Write a difference of scores with its sign."""
    # Rounded first, for there is no minus zero; the minus is the one as wide as the plus.
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")
