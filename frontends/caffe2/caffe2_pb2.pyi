"""The generated module as type checkers see it: message classes are dynamic."""

from typing import Any

DESCRIPTOR: Any
DeviceOption: Any
Argument: Any
OperatorDef: Any
NetDef: Any
