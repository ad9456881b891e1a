"""Numbers as words of the page; a dash for what is not known."""

UNKNOWN = "\u2013"  # a dash


def as_number(value: float | None, digits: int = 0) -> str:
    """With thousands separators; a dash for what is not known."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def as_percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"


def as_duration(seconds: float | None) -> str:
    """ "45 s", "12 min 3 s", "5 h 20 min"."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
