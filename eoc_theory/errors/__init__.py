"""The errors of the toolkit: one line that names the argument, what was given and what is accepted."""

from __future__ import annotations

from .text import one_line


class EOCError(ValueError):
    """Base class of all errors of the toolkit; a ``ValueError``, so ordinary handlers keep working.

    Its message is one line of printable characters, whatever names or values it quotes.
    """

    def __init__(self, *message: object) -> None:
        super().__init__(*(one_line(part) if isinstance(part, str) else part for part in message))


class ArgumentError(EOCError):
    """An argument is outside what the function accepts."""


class ActivationError(EOCError):
    """An activation function is unknown, not vectorised, not finite, or cannot do what was asked."""


class ExpressionError(ActivationError):
    """A text or SymPy expression in x cannot be read as an activation function."""


class DivergentExpectationError(EOCError):
    """A Gaussian expectation does not exist, e.g. E[exp(Z²)]."""


class ConvergenceError(EOCError):
    """A numerical method did not reach the accuracy it promises."""


class NoCriticalPointError(EOCError):
    """No point on the edge of chaos satisfies the request."""


class DataError(EOCError):
    """Inputs or targets have the wrong shape, type or values."""


class ModelError(EOCError):
    """A model or architecture holds something the toolkit cannot describe."""


class EmptyLayerError(ModelError):
    """A layer has no weight left, or no signal passes it."""


class MissingDependencyError(EOCError):
    """An optional package (torch, matplotlib, pandas …) is needed and not installed."""


class TooLargeError(ArgumentError):
    """A request needs more memory or time than is sensible; the message says what to change."""


class CallbackError(EOCError):
    """A function that the caller passed raised an error of its own, which is the cause of this one."""


class InternalError(EOCError):
    """Something went wrong inside the toolkit: a bug, to be reported. The original error is its cause."""
