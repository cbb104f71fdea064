"""Graph to buffer program.

1. choose: every node gets a kernel, or is found to be another view of its operand.
2. home: values that share memory are grouped, outputs and borders settled; copies where memory cannot be shared.
3. schedule: with all geometry known, kernels fix their schedules and pack their constants.
4. place: liveness, then arena offsets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqzc.ir.constant import Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops.elementwise import Identity
from sqzc.ir.ops.shape import Concat, Relayout, Reshape
from sqzc.plan.library import KernelLibrary, Selection
from sqzc.plan.memory import Interval, lower_bound, place
from sqzc.plan.program import CLEAR_BORDER, NO_BORDER, Border, Buffer, Program, Role, Step, image_geometry


def lower(graph: Graph, library: KernelLibrary) -> Program:
    """The buffer program of a verified graph."""
    return _Lowering(graph, library).run()


def is_view(node: Node) -> bool:
    """Whether the result is the operand's memory under another type."""
    if isinstance(node.op, Identity | Reshape):
        return True
    if not isinstance(node.op, Relayout):
        return False
    # One pixel per channel: whole blocks lie in memory exactly as row-major channels do.
    x, y = node.inputs[0].type, node.output.type
    same = x.layout == y.layout
    single = x.shape[2:] == (1, 1) and (x.physical_bytes == y.physical_bytes or (y.layout.is_plain and x.shape[0] == 1))
    return same or single


def is_placed(node: Node) -> bool:
    """Whether the node joins images along channels, at whole blocks, and its operands are to be made in its result."""
    if not isinstance(node.op, Concat) or not node.op.placed or node.op.axis != 1 or node.output.type.rank != 4:
        return False
    block = node.output.type.layout.block or 1
    return all(value.type.shape[1] % block == 0 for value in node.inputs[:-1])


@dataclass
class _Home:
    """Where a value lives: in memory of its own (`parent` None), or in that of another value."""

    value: Value
    parent: _Home | None = None
    slice: bool = False
    channel: int = 0
    role: Role = Role.ARENA
    border: Border = NO_BORDER
    rigid: bool = False

    @property
    def root(self) -> _Home:
        home = self
        while home.parent is not None:
            home = home.parent
        return home

    @property
    def reshaped(self) -> bool:
        """Whether the value is another shape of its root's memory, so that a border would break it."""
        home = self
        while home.parent is not None:
            if not home.slice and home.value.type != home.parent.value.type:
                return True
            home = home.parent
        return False


class _Lowering:
    def __init__(self, graph: Graph, library: KernelLibrary) -> None:
        self.graph, self.library = graph, library
        self.program = Program(graph.name, library.target.name, meta=graph.meta)
        self.homes: dict[int, _Home] = {}
        self.calls: list[_Call] = []
        self.names: set[str] = {value.name for value in graph.values()}

    def run(self) -> Program:
        self.choose()
        self.settle_outputs()
        self.settle_borders()
        self.make_buffers()
        self.make_steps()
        self.place()
        return self.program

    # -- 1. kernels and views -----------------------------------------------------------------------------------------

    def choose(self) -> None:
        for value in self.graph.inputs:
            self.homes[id(value)] = _Home(value, role=Role.INPUT, rigid=True)
        for value in self.graph.constants:
            self.homes[id(value)] = _Home(value, role=Role.CONSTANT, rigid=True)
        covered: dict[int, Selection] = {}
        for node in self.graph.nodes:
            if is_view(node):
                self.homes[id(node.output)] = _Home(node.output, self.homes[id(node.inputs[0])])
                continue
            if is_placed(node):
                self.place_concat(node)
                continue
            selection = covered.get(id(node))
            if selection is None:
                selection = self.library.select(self.graph, node)
                covered.update({id(other): selection for other in selection.nodes})
            if selection.nodes[-1] is node:
                self.call(selection)

    def call(self, selection: Selection) -> None:
        for value in selection.writes:
            self.homes[id(value)] = _Home(value, rigid=not selection.images)
        reads = [self.homes[id(value)] for value in selection.reads]
        for home in reads:
            # Another shape of the memory would not survive a border either.
            if not selection.images or home.reshaped:
                home.root.rigid = True
        borders = list(selection.borders) or [NO_BORDER] * len(reads)
        writes = [self.homes[id(value)] for value in selection.writes]
        self.calls.append(_Call(selection.kernel, selection, reads, writes, borders))

    def place_concat(self, node: Node) -> None:
        """Lets the operands be made inside the result; one that cannot be is copied into its slice."""
        result = _Home(node.output)
        self.homes[id(node.output)] = result
        channel = 0
        for value in node.inputs:
            home = self.homes[id(value)]
            if self.fits_slice(home, node):
                home.parent, home.slice, home.channel = result, True, channel
                result.rigid = result.rigid or home.rigid
            else:
                part = _Home(Value(self.fresh(f"{value.name}.slice"), value.type, value.source), result, True, channel)
                self.copy(home, part)
            channel += value.type.shape[1]

    def fits_slice(self, home: _Home, concat: Node) -> bool:
        """Whether a value can be made inside the result of a concat."""
        value = home.value
        own = home.parent is None and home.role is Role.ARENA and value.type.layout == concat.output.type.layout
        # Of several images, slices have other images' channels in between: no place for whole tensors and reshapes.
        return own and (value.type.shape[0] == 1 or (not home.rigid and self.graph.sole_user(value) is concat))

    def fresh(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.names:
            count += 1
            name = f"{wanted}{count}"
        self.names.add(name)
        return name

    def copy(self, source: _Home, target: _Home, before: _Call | None = None) -> None:
        images = source.value.type.rank == 4 and (source.root.border, target.root.border) != (NO_BORDER, NO_BORDER)
        images = images or source.slice or target.slice or source.value.type.layout != target.value.type.layout
        if not images or source.reshaped:
            source.root.rigid = True
        if not images:
            target.root.rigid = True
        kernel = self.library.copy(target.value.type, images=images)
        call = _Call(kernel, None, [source], [target], [NO_BORDER])
        self.calls.insert(self.calls.index(before) if before else len(self.calls), call)

    # -- 2. memory ----------------------------------------------------------------------------------------------------

    def settle_outputs(self) -> None:
        for name, value in self.graph.outputs:
            home = self.homes[id(value)]
            root = home.root
            direct = root.role is Role.ARENA and value.type.layout.is_plain and self.gapless(home)
            if direct and root.value.type.physical_bytes == value.type.physical_bytes:
                root.role, root.rigid = Role.OUTPUT, True
                self.program.outputs.append((name, value.name))
                continue
            plain = value.type.with_layout(type(value.type.layout)())
            fresh = _Home(Value(self.fresh(f"{value.name}.out"), plain, value.source), role=Role.OUTPUT, rigid=True)
            self.copy(home, fresh)
            self.program.outputs.append((name, fresh.value.name))

    def gapless(self, home: _Home) -> bool:
        """Whether the root's memory is row-major without holes and the value is no slice of it."""
        while home.parent is not None:
            if home.slice:
                return False
            home = home.parent
        type_ = home.value.type
        whole = type_.physical_bytes == type_.elements * type_.dtype.item_bytes
        return type_.layout.is_plain or (whole and type_.shape[2:] == (1, 1))

    def settle_borders(self) -> None:
        copies: dict[int, _Home] = {}
        for call in list(self.calls):
            for index, border in enumerate(call.borders):
                if border == NO_BORDER:
                    continue
                home = call.reads[index]
                if home.reshaped or home.root.rigid or home.root.role is not Role.ARENA:
                    if id(home) not in copies:
                        fresh = Value(self.fresh(f"{home.value.name}.bordered"), home.value.type, home.value.source)
                        copies[id(home)] = _Home(fresh)
                        copies[id(home)].border = border
                        self.copy(home, copies[id(home)], call)
                    home = call.reads[index] = copies[id(home)]
                home.root.border = _wider(home.root.border, border)

    def make_buffers(self) -> None:
        homes = {id(h): h for call in self.calls for h in (*call.reads, *call.writes)}
        homes.update({id(self.homes[id(v)]): self.homes[id(v)] for v in self.graph.inputs})
        homes.update({id(self.homes[id(v)]): self.homes[id(v)] for _, v in self.graph.outputs})
        for home in list(homes.values()):
            while home.parent is not None:
                home = home.parent
                homes[id(home)] = home
        self.program.inputs = [value.name for value in self.graph.inputs]
        for home in sorted(homes.values(), key=lambda h: (self.depth(h), h.value.name)):
            self.program.buffers[home.value.name] = self.buffer(home)
            constant = home.value.constant
            if constant is not None:
                self.program.constants[home.value.name] = constant

    def depth(self, home: _Home) -> int:
        return 0 if home.parent is None else 1 + self.depth(home.parent)

    def buffer(self, home: _Home) -> Buffer:
        value = home.value
        if home.parent is None:
            return Buffer(value.name, value.type, home.role, home.border)
        parent = self.program.buffers[home.parent.value.name]
        offset = 0
        if home.slice:
            geometry = image_geometry(parent.type, parent.border)
            offset = home.channel // (parent.type.layout.block or 1) * geometry.plane * parent.type.dtype.item_bytes
        border = parent.border if home.slice or value.type == parent.type else NO_BORDER
        return Buffer(value.name, value.type, Role.VIEW, border, parent.name, home.channel, offset)

    # -- 3. schedules -------------------------------------------------------------------------------------------------

    def make_steps(self) -> None:
        cleared: set[str] = set()
        for call in self.calls:
            for home in call.writes:
                root = home.root
                if root.border != NO_BORDER and root.value.name not in cleared:
                    cleared.add(root.value.name)
                    self.add(Step(CLEAR_BORDER, (), (), (), (root.value.name,)), {})
            self.add(call.step(), call.arrays)

    def add(self, step: Step, arrays: dict[str, object]) -> None:
        finished = self.library.finish(self.program, step, arrays)  # type: ignore[arg-type]
        names = []
        for role, array in finished.constants.items():
            name = self.fresh(f"{step.writes[0]}.{role}")
            self.program.constants[name] = Constant(name, array)
            names.append(name)
        self.program.steps.append(
            replace(
                step,
                constants=tuple(names),
                schedule=dict(finished.schedule),
                scratch=finished.scratch,
                prepared=finished.prepared,
            )
        )

    # -- 4. placement -------------------------------------------------------------------------------------------------

    def place(self) -> None:
        program = self.program
        lives: dict[str, tuple[int, int]] = {}
        for index, step in enumerate(program.steps):
            for name in (*step.reads, *step.writes):
                root = program.root(name)[0].name
                first, _ = lives.get(root, (index, index))
                lives[root] = (first, index)
        arena = [b for b in program.buffers.values() if b.role is Role.ARENA and b.name in lives]
        intervals = [Interval(b.bytes, *lives[b.name]) for b in arena]
        offsets, program.arena_bytes = place(intervals)
        program.bound_bytes = lower_bound(intervals)
        for buffer, offset in zip(arena, offsets, strict=True):
            program.buffers[buffer.name] = replace(buffer, offset=offset, live=lives[buffer.name])


@dataclass
class _Call:
    """A kernel call before buffers have names: `selection` is None for copies."""

    kernel: str
    selection: Selection | None
    reads: list[_Home]
    writes: list[_Home]
    borders: list[Border]

    @property
    def arrays(self) -> dict[str, object]:
        return dict(self.selection.constants) if self.selection else {}

    def step(self) -> Step:
        nodes = self.selection.nodes if self.selection else ()
        sources = tuple(dict.fromkeys(name for home in self.writes for name in home.value.source))
        return Step(
            self.kernel,
            tuple(node.op for node in nodes),
            tuple(home.value.name for home in self.reads),
            (),
            tuple(home.value.name for home in self.writes),
            dict(self.selection.facts) if self.selection else {},
            sources=sources,
            flops=sum(node.flops for node in nodes),
        )


def _wider(a: Border, b: Border) -> Border:
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
