"""The rules every graph keeps, checked after every pass."""

from __future__ import annotations

from sqzc.diagnostics import Location, VerifyError
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import Layouts
from sqzc.ir.types import Layout


def verify(graph: Graph) -> None:
    """VerifyError at the first broken rule: SSA order, users, unique names, types, layouts."""
    defined: dict[int, Value] = {}
    names: set[str] = set()

    def define(value: Value, where: str) -> None:
        if value.name in names:
            raise VerifyError(f"two values are called %{value.name}", location=Location(f"@{graph.name}", where))
        names.add(value.name)
        defined[id(value)] = value

    for value in graph.inputs:
        define(value, "inputs")
    for value in graph.constants:
        define(value, "constants")
        if value.constant is None or value.constant.type != value.type:
            raise VerifyError(f"constant %{value.name} does not have the type of its data", got=str(value.type))
    uses: dict[int, int] = {}
    for node in graph.nodes:
        for value in node.inputs:
            if id(value) not in defined:
                raise _fault(graph, node, f"%{value.name} is used before it is defined")
            uses[id(value)] = uses.get(id(value), 0) + 1
        verify_node(graph, node)
        for value in node.outputs:
            if value.producer is not node:
                raise _fault(graph, node, f"%{value.name} does not know its producer")
            define(value, repr(node))
    for name, value in graph.outputs:
        if id(value) not in defined:
            raise VerifyError(f"output '{name}' reads %{value.name}, which nothing defines")
    for value in defined.values():
        if len(value.users) != uses.get(id(value), 0):
            raise VerifyError(f"%{value.name} records {len(value.users)} uses", expected=str(uses.get(id(value), 0)))


def verify_node(graph: Graph, node: Node) -> None:
    """VerifyError unless the operands fit and the result types are the inferred ones."""
    try:
        wanted = node.op.result_types([v.type for v in node.inputs])
    except VerifyError as error:
        raise _fault(graph, node, error.message, error) from error
    got = tuple(v.type.with_layout(Layout()) for v in node.outputs)
    if got != wanted:
        raise VerifyError(
            f"{node.op.name}: result type",
            location=_place(graph, node),
            expected=", ".join(map(str, wanted)),
            got=", ".join(map(str, got)),
        )
    _verify_layouts(graph, node)


def _verify_layouts(graph: Graph, node: Node) -> None:
    rule = node.op.layouts
    if rule is Layouts.CONVERT:
        return
    if rule is Layouts.SAME:
        images = [v for v in (*node.inputs, *node.outputs)]
        if len({v.type.layout for v in images}) > 1:
            raise _fault(graph, node, f"{node.op.name} takes and gives one layout")
        return
    if rule is Layouts.BROADCAST:
        _verify_broadcast(graph, node)
        return
    for index, value in enumerate((*node.inputs, *node.outputs)):
        is_operand = index < len(node.inputs)
        free = rule is Layouts.IMAGE and (not is_operand or node.op.operand_name(index) in node.op.image_operands)
        if not free and not value.type.layout.is_plain:
            raise _fault(graph, node, f"{node.op.name} takes %{value.name} row-major only, not {value.type.layout}")


def _verify_broadcast(graph: Graph, node: Node) -> None:
    result = node.output.type
    for value in node.inputs:
        wanted = Layout() if value.type.elements == 1 else result.layout
        if value.type.layout != wanted:
            words = str(wanted) or "row-major"
            raise _fault(graph, node, f"{node.op.name} takes %{value.name} as {words} here")
        if not wanted.is_plain and value.type.shape[1] != result.shape[1]:
            raise _fault(graph, node, f"{node.op.name} cannot broadcast the channels of %{value.name} in {wanted}")


def _place(graph: Graph, node: Node) -> Location:
    return Location(f"@{graph.name}", repr(node))


def _fault(graph: Graph, node: Node, message: str, cause: VerifyError | None = None) -> VerifyError:
    return VerifyError(
        message,
        location=_place(graph, node),
        expected=cause.expected if cause else None,
        got=cause.got if cause else None,
    )
