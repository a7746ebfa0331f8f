"""The exception and the warning of this package."""


class QuantizationError(ValueError):
    """Something that makes sense for arrays cannot be quantized: no data seen, a sum that could overflow.

    Examples
    --------
    >>> import ndquant as nq
    >>> try:
    ...     nq.MinMaxObserver().qparams(nq.QuantSpec())
    ... except nq.QuantizationError as error:
    ...     print(error)
    MinMaxObserver has seen no data: call update(x) first
    """


class QuantizationWarning(UserWarning):
    """The result is well defined but probably not what was meant.

    Examples
    --------
    >>> import warnings
    >>> import ndquant as nq
    >>> warnings.simplefilter("error", nq.QuantizationWarning)
    """
