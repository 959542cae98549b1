"""Share of work that came to something: a warning where it is small, else an error."""

from absl import logging

from common.errors import RunError

LEAST, FEW = 0.01, 0.5
"""Shares of work below which a command fails, and below which it warns."""


def judge(num_done: int, num_total: int, what: str, remedy: str = "") -> None:
    """Warns where little of the work was done, and fails where hardly any was.

    It is called once everything is written: what was made stays.

    >>> judge(9, 10, "draws passed")
    >>> judge(0, 10, "draws passed", "give a smaller --lag")
    Traceback (most recent call last):
    ...
    common.errors.RunError: 0 of 10 draws passed (0.0%); give a smaller --lag

    Args:
        num_done: number of pieces that came to something.
        num_total: number of pieces of work; where it is 0, nothing is said.
        what: pieces and their success in words, as `draws passed`.
        remedy: advice for the user, in words that follow a semicolon.

    Raises:
        RunError: Less than `LEAST` of the work was done.
    """
    if not num_total or num_done >= FEW * num_total:
        return
    share = num_done / num_total
    line = f"{num_done} of {num_total} {what} ({share:.1%})"
    line = f"{line}; {remedy}" if remedy else line
    if share < LEAST:
        raise RunError(line)
    logging.warning("only %s", line)
