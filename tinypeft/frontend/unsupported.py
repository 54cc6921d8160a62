"""TFLite operators that cannot be in an int8 model, or that tinypeft leaves out, each with the reason."""

from __future__ import annotations

#: TFLite operator -> why it is not supported, as one sentence
UNSUPPORTED: dict[str, str] = {
    "CUMSUM": "LiteRT has no int8 kernel of CUMSUM.",
    "L2_POOL_2D": "L2_POOL_2D is computed in float alone: LiteRT has no int8 kernel of it.",
    "REDUCE_ALL": "REDUCE_ALL is computed on booleans, which an int8 model does not have.",
    "REDUCE_ANY": "REDUCE_ANY is computed on booleans, which an int8 model does not have.",
    "REDUCE_PROD": "REDUCE_PROD is rounded to a step after every factor, so that little of a long product is left; "
    "take the logarithm in front of the model, or MUL for two factors.",
    "REVERSE_SEQUENCE": "LiteRT has no int8 kernel of REVERSE_SEQUENCE; reverse whole axes by slices of step -1.",
    "SUM": "LiteRT's reference kernel of SUM takes int8 for uint8, so that there are no bits to equal; use a mean, "
    "which differs by a constant factor.",
    "COS": "COS is computed in float alone: LiteRT has no int8 kernel of it.",
    "DIV": "DIV stops LiteRT at a divisor of zero; divide by a constant, which the converter turns into a MUL.",
    "FLOOR": "FLOOR is computed in float alone: LiteRT has no int8 kernel of it.",
    "FLOOR_DIV": "FLOOR_DIV divides the int8 numbers themselves, whatever their scales.",
    "FLOOR_MOD": "FLOOR_MOD divides the int8 numbers themselves, whatever their scales.",
    "POW": "POW is computed in float alone: LiteRT has no int8 kernel of it; use a MUL of the input by itself.",
    "SIGN": "SIGN is computed in float alone: LiteRT has no int8 kernel of it.",
    "SIN": "SIN is computed in float alone: LiteRT has no int8 kernel of it.",
    "EQUAL": "EQUAL gives booleans, which an int8 model does not have; use MAXIMUM, MINIMUM or a clip.",
    "GREATER": "GREATER gives booleans, which an int8 model does not have; use MAXIMUM, MINIMUM or a clip.",
    "GREATER_EQUAL": "GREATER_EQUAL gives booleans, which an int8 model does not have; use MAXIMUM, MINIMUM or a clip.",
    "LESS": "LESS gives booleans, which an int8 model does not have; use MAXIMUM, MINIMUM or a clip.",
    "LESS_EQUAL": "LESS_EQUAL gives booleans, which an int8 model does not have; use MAXIMUM, MINIMUM or a clip.",
    "NOT_EQUAL": "NOT_EQUAL gives booleans, which an int8 model does not have; use MAXIMUM, MINIMUM or a clip.",
    "SELECT": "SELECT takes booleans, which an int8 model does not have; use MAXIMUM, MINIMUM or a clip.",
    "SELECT_V2": "SELECT_V2 takes booleans, which an int8 model does not have; use MAXIMUM, MINIMUM or a clip.",
}
