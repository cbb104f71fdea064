"""What there is to choose in a model: a kernel for each convolution, a schedule for each kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.spaces import SPACES, Space
from sqzc.backends.llvm.tuning import Entry, Tuning, node_problem, step_problem
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Pool2d
from sqzc.plan.program import CLEAR_BORDER, Program, Step

MOST = 32
"""Schedules that are tried for one kernel, the model's included."""

WORTH_TRYING = 1.6
"""Schedules that are predicted to be slower than the best by more than this factor are not tried."""


@dataclass(frozen=True)
class Question:
    """One choice for all places with the same problem. The first of `options` is what the plan already has.

    `values` are what the steps of a kernel question write, whichever kernels they run; a schedule question, where it is
    empty, is about the steps with its kernel and problem.
    """

    options: tuple[Entry, ...]
    values: frozenset[str] = frozenset()

    @property
    def of_kernels(self) -> bool:
        """Whether kernels are to be chosen, not schedules."""
        return bool(self.values)

    def steps(self, program: Program) -> list[int]:
        """The steps of a plan that answer the question."""
        if self.of_kernels:
            return writers(program, self.values)
        first = self.options[0]
        return [
            i
            for i, step in enumerate(program.steps)
            if step.kernel == first.kernel and step_problem(program, step) == first.problem
        ]


def writers(program: Program, values: frozenset[str]) -> list[int]:
    """The steps that compute some values; what clears their borders does it for others too."""
    return [
        i for i, step in enumerate(program.steps) if step.kernel != CLEAR_BORDER and values.intersection(step.writes)
    ]


def chain(graph: Graph, node: Node) -> tuple[str, ...]:
    """What the kernels of a node write: its results, and those of the pool that may be fused behind it."""
    names = tuple(value.name for value in node.outputs)
    user = graph.sole_user(node.outputs[0])
    return (*names, user.output.name) if user is not None and isinstance(user.op, Pool2d) else names


def kernel_questions(graph: Graph, library: Library, program: Program) -> list[Question]:
    """One for each problem that several families can run, in the order of the graph."""
    made_by = {name: step for step in program.steps if step.kernel != CLEAR_BORDER for name in step.writes}
    nodes: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.outputs:
            nodes.setdefault(node_problem(graph, node), []).append(node)
    found = []
    for problem, alike in nodes.items():
        # Weights may make a form too inaccurate for one of several nodes.
        possible = [library.alternatives(graph, node) for node in alike]
        names = [name for name in possible[0] if all(name in others for others in possible)]
        kernels = {_kernel_of(graph, node, made_by) for node in alike}
        if len(names) < 2 or len(kernels) != 1 or not kernels <= set(names):
            continue
        current = kernels.pop()
        values = frozenset(name for node in alike for name in chain(graph, node))
        order = [current, *(name for name in names if name != current)]
        found.append(Question(tuple(Entry(name, problem) for name in order), values))
    return found


def _kernel_of(graph: Graph, node: Node, made_by: dict[str, Step]) -> str:
    """The kernel that runs a node now: alone, or with the pool behind it."""
    return next((made_by[name].kernel for name in chain(graph, node) if name in made_by), "")


def schedule_questions(library: Library, program: Program) -> list[Question]:
    """One for each kernel and problem that has several schedules, in the order of the plan."""
    seen: set[tuple[str, str]] = set()
    found = []
    for step in program.steps:
        space = SPACES.get(step.kernel)
        problem = step_problem(program, step)
        if space is None or (step.kernel, problem) in seen:
            continue
        seen.add((step.kernel, problem))
        first = Entry(step.kernel, problem, dict(step.schedule))
        others = [replace(first, schedule=fields) for fields in _ranked(library, space, program, step)]
        if others:
            found.append(Question((first, *others)))
    return found


def _ranked(library: Library, space: Space, program: Program, step: Step) -> Iterator[dict[str, int | str]]:
    """The schedules worth trying besides the step's own, best prediction first."""
    target, problem = library.target, space.problem(program, step)
    every = list(space.candidates(library.families[step.kernel], problem, target))
    if space.predict is not None:
        predict = space.predict
        cycles = {schedule: predict(problem, schedule, target) for schedule in every}
        limit = WORTH_TRYING * min(cycles.values(), default=0.0)
        every = sorted((schedule for schedule in every if cycles[schedule] <= limit), key=lambda s: cycles[s])
    for schedule in every[:MOST]:
        if schedule.to_fields() != step.schedule:
            yield schedule.to_fields()


def with_choices(tuning: Tuning, choices: Iterable[tuple[Question, Entry]]) -> Tuning:
    """The tuning with these entries in place of those for the same problems."""
    kernels = {entry.problem: entry for entry in tuning.kernels}
    schedules = {(entry.kernel, entry.problem): entry for entry in tuning.schedules}
    for question, entry in choices:
        if question.of_kernels:
            kernels[entry.problem] = entry
        else:
            schedules[entry.kernel, entry.problem] = entry
    return replace(tuning, kernels=tuple(kernels.values()), schedules=tuple(schedules.values()))
