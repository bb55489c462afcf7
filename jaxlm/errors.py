"""What the person at the terminal can put right. (`jaxlm.models.CheckpointError` is another such.)"""


class UserError(Exception):
    """Wrong input: the message says what, where, and what would be right. The command line exits with code 2."""


class WhichColumn(UserError):
    """Which column serves what has to be told."""


class NoSuchColumn(UserError):
    """A column that was asked for is not there."""


class RunFailed(Exception):
    """What went wrong on the way, and whether the same command goes on. The command line exits with code 1."""


class NonFiniteLoss(RunFailed):
    """Training met a loss that is infinite or not a number; the message names step and examples."""
