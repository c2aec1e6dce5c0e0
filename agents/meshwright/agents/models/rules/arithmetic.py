"""Arithmetic without a language model: expressions found in words and worked out exactly."""

import ast
import operator
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

LONGEST_EXPRESSION = 200
"""Characters; what is longer is not worked out."""
MOST_BITS = 2_048
"""Size of a power's result; `9 ** 9 ** 9` must not stop the process."""
LONGEST_TASK = 400
"""Characters; a longer text is no sum to do."""
MOST_WORDS = 3
"""Words around an expression that ask for nothing; more of them and the numbers are only mentioned."""
TOO_LARGE = "its result is too large"
UNREADABLE = "it is not an expression that can be read"
MOST_DIGITS = 12
"""Significant digits of a result that has no end."""

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
    ast.Mod: operator.mod,
}
_SPOKEN = (
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|percent)\s+of\s+", re.IGNORECASE), r"\1 / 100 * "),
    (re.compile(r"\b(?:times|multiplied by)\b|[×·]|(?<=\d)\s*x\s*(?=\d)", re.IGNORECASE), "*"),  # noqa: RUF001
    (re.compile(r"\bdivided by\b|÷", re.IGNORECASE), "/"),
    (re.compile(r"\bplus\b", re.IGNORECASE), "+"),
    (re.compile(r"\bminus\b|−", re.IGNORECASE), "-"),  # noqa: RUF001 - the minus sign of typographers
    (re.compile(r"\bto the power of\b|\^", re.IGNORECASE), "**"),
)
_EXPRESSION = re.compile(r"[-+(\s]*\d[\d.\s()+\-*/%]*[\d)]")
_SUM = re.compile(r"[\d)]\s*[-+*/%]+\s*[-+(\s]*\d")
_WORD = re.compile(r"[^\W\d_]{2,}")
_RANGE = re.compile(r"\d+[-/]\d+")
_ASKING = frozenset(
    [
        *("what", "is", "are", "how", "much", "many", "calculate", "compute", "evaluate", "work", "out", "the", "of"),
        *("please", "sum", "and", "equals", "give", "me", "can", "you", "tell", "value", "solve", "does", "result"),
    ]
)
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}|\d+\.\d+\.\d+")


def expressions(task: str) -> list[str]:
    """Finds what is to be worked out in a short text, spoken operators (`12 times 3`) included."""
    if len(task) > LONGEST_TASK or _DATE.search(task):
        return []
    text = task
    for pattern, replacement in _SPOKEN:
        text = pattern.sub(replacement, text)
    found = [_balanced(match.group().strip()) for match in _EXPRESSION.finditer(text)]
    around = [word for word in _WORD.findall(_EXPRESSION.sub(" ", text).lower()) if word not in _ASKING]
    if len(around) > MOST_WORDS:
        return []
    return [each for each in found if _SUM.search(each) and not (around and _RANGE.fullmatch(each))]


def evaluate(expression: str) -> str:
    """Works an expression out exactly: + - * / // % ** and parentheses over whole and decimal numbers.

    Returns:
        A whole number or a decimal one, rounded to `MOST_DIGITS` significant digits when it has no end.

    Raises:
        ValueError: It divides by zero, is no expression, or gets too large; the text says which.
    """
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError(f"it is longer than {LONGEST_EXPRESSION} characters")
    try:
        return _written(_value(ast.parse(expression, mode="eval").body))
    except ZeroDivisionError:
        raise ValueError("it divides by zero") from None
    except OverflowError:
        raise ValueError(TOO_LARGE) from None
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(UNREADABLE) from None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=number) if type(number) in {int, float}:
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
    raise ValueError(UNREADABLE)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MOST_BITS:
        raise ValueError(TOO_LARGE)
    if exponent.denominator == 1:
        return base**exponent.numerator
    if base < 0:
        raise ValueError("it has no real result")
    return Fraction(str(float(base) ** float(exponent)))


def _written(value: Fraction) -> str:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_BITS:
        raise ValueError(TOO_LARGE)
    if value.denominator == 1:
        return str(value.numerator)
    with localcontext(prec=MOST_DIGITS):
        quotient = (Decimal(value.numerator) / Decimal(value.denominator)).normalize()
    return f"{quotient:f}" if abs(quotient.adjusted()) < MOST_DIGITS else str(quotient)


def _balanced(text: str) -> str:
    """Drops a parenthesis that belongs to the words around: `(12 * 3` of `(12 * 3 eggs)`."""
    while text.startswith("(") and text.count("(") > text.count(")"):
        text = text[1:].lstrip()
    while text.endswith(")") and text.count(")") > text.count("("):
        text = text[:-1].rstrip()
    return text
