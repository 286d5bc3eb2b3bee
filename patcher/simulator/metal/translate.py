"""Preprocessed Metal source to C++: literals, threadgroup variables, attributes, constants, and calls of kernels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from patcher.simulator.metal import lints
from patcher.simulator.metal.tokens import Tokens, join, split

SOURCE_NAME = "program_source"
"""What Metal calls a source without a file."""
MAX_THREADS = 1024

POSITIONS = {
    "thread_position_in_grid": "position_in_grid",
    "thread_position_in_threadgroup": "position_in_group",
    "threadgroup_position_in_grid": "group_position",
    "threads_per_threadgroup": "group_size",
    "dispatch_threads_per_threadgroup": "dispatch_group_size",
    "threads_per_grid": "grid_size",
    "threadgroups_per_grid": "groups",
}
NUMBERS = {
    "thread_index_in_threadgroup": "t.index_in_group",
    "thread_index_in_simdgroup": "t.lane",
    "thread_index_in_quadgroup": "t.lane % 4",
    "simdgroup_index_in_threadgroup": "t.simdgroup",
    "quadgroup_index_in_threadgroup": "t.index_in_group / 4",
    "simdgroups_per_threadgroup": "t.simdgroups",
    "dispatch_simdgroups_per_threadgroup": "t.simdgroups",
    "threads_per_simdgroup": "32",
    "thread_execution_width": "32",
}
ADDRESS_SPACES = set(lints.SPACES)

_UNROLLING = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+(clang[ \t]+loop[ \t]+)?unroll\b.*", re.MULTILINE)
"""Hints that change no result: to follow them takes six times as long to compile products of matrices."""


@dataclass(frozen=True)
class Parameter:
    """How the launcher passes one parameter.

    Attributes:
        expression: C++, in terms of the thread `t` and the buffers `b`.
        buffer: the argument that it takes; -1 for what the grid tells.
        is_const: the kernel cannot write to it.
    """

    expression: str
    buffer: int = -1
    is_const: bool = True


@dataclass(frozen=True)
class Kernel:
    """A kernel that the host can call.

    Attributes:
        name: what the host calls it.
        function: the C++ function, with template arguments.
        parameters: in the order of the function.
        max_threads: of a threadgroup.
        signature: its parameters as an instantiation has them, which tell template arguments that are not written out.
    """

    name: str
    function: str
    parameters: tuple[Parameter, ...]
    max_threads: int = MAX_THREADS
    signature: str = ""

    @property
    def buffers(self) -> int:
        """The number of arguments that the host has to give."""
        return max((parameter.buffer for parameter in self.parameters), default=-1) + 1

    @property
    def written(self) -> frozenset[int]:
        """Positions of the arguments that the kernel may write to."""
        return frozenset(parameter.buffer for parameter in self.parameters if not parameter.is_const)


@dataclass
class _Found:
    kernels: dict[str, Kernel] = field(default_factory=dict)
    templates: dict[str, Kernel] = field(default_factory=dict)


class ShaderError(Exception):
    """The shader asks for what Metal, or torch.mps.compile_shader, does not have."""


def translate(preprocessed: str, constants: Mapping[int, int | float | bool]) -> tuple[str, list[Kernel]]:
    """C++ that can be compiled after ``metal_cpu.h``, and the kernels that it launches.

    Args:
        preprocessed: the shader after the preprocessor, with its line marks.
        constants: values of function constants by index.

    Raises:
        ShaderError: a kernel takes what the host cannot pass, or the source has what Metal does not.
    """
    tokens = Tokens(_UNROLLING.sub("", preprocessed))
    findings = lints.find(tokens)
    if findings:
        raise ShaderError("\n".join(f"{SOURCE_NAME}:{finding.line}: error: {finding.message}" for finding in findings))
    found = _kernels(tokens)
    _make_literals_float(tokens)
    _convert_between_halves(tokens)
    _set_function_constants(tokens, constants)
    _drop_address_space_overloads(tokens)
    tokens = Tokens(str(tokens))
    _allocate_threadgroup_variables(tokens)
    _drop_attributes(tokens)
    kernels = list(found.kernels.values())
    return str(tokens) + _launchers(kernels), kernels


# ---- kernels ----------------------------------------------------------------------------------------------------


def _kernels(tokens: Tokens) -> _Found:
    found = _Found()
    at = 0
    while at < len(tokens):
        if tokens[at] == "kernel":
            at = _kernel(tokens, at, found)
        at += 1
    return found


def _kernel(tokens: Tokens, at: int, found: _Found) -> int:
    """Takes in the declaration that the word `kernel` at `at` belongs to; returns where to go on."""
    begin = tokens.statement_begin(at)
    head = tokens.between(begin, at)
    enclosing = [i for i in range(begin, at) if tokens[i] == "[[" and tokens.closing(i) > at]
    following = tokens.closing(enclosing[0]) + 1 if enclosing else at + 1
    while tokens[following] == "[[":
        following = tokens.closing(following) + 1
    if tokens[following] == "decltype":
        end = tokens.find(";", at)
        function = join(tokens.between(tokens.closing(following + 1) + 1, end))
        _instantiate(tokens, found, head, function, begin, end)
        return end
    if tokens[following] != "void":
        return at
    opening = tokens.find("(", following)
    closing = tokens.closing(opening)
    function = join(tokens.between(following + 1, opening))
    if "template" in head and "host_name" in head:
        end = tokens.find(";", closing)
        signature = _without_attributes(tokens, opening + 1, closing)
        _instantiate(tokens, found, head, function, begin, end, signature)
        return end
    if tokens[closing + 1] == ";":
        return closing  # its definition comes later
    attributes = head + tokens.between(at, following)
    name = _host_name(attributes) or function
    parameters = _parameters(tokens.between(opening + 1, closing), tokens.line(at))
    kernel = Kernel(name, function, parameters, _max_threads(attributes))
    (found.templates if "template" in head else found.kernels)[name] = kernel
    return closing


def _instantiate(
    tokens: Tokens, found: _Found, head: list[str], function: str, begin: int, end: int, signature: str = ""
) -> None:
    name, template = _host_name(head), function.partition("<")[0].split("::")[-1].strip()
    primary = found.templates.get(template)
    if name is None or primary is None:
        line = tokens.line(begin)
        raise ShaderError(f"{SOURCE_NAME}:{line}: error: explicit instantiation of '{template}', which is no template")
    threads = min(primary.max_threads, _max_threads(head))
    found.kernels[name] = Kernel(name, function, primary.parameters, threads, signature)
    tokens.replace(begin, end)


def _without_attributes(tokens: Tokens, begin: int, end: int) -> str:
    kept, at = [], begin
    while at < end:
        if tokens[at] == "[[":
            at = tokens.closing(at)
        else:
            kept.append(tokens[at])
        at += 1
    return join(kept)


def _host_name(attributes: list[str]) -> str | None:
    if "host_name" not in attributes:
        return None
    begin = attributes.index("host_name") + 2
    parts = []
    for token in attributes[begin:]:
        if not token.startswith('"'):
            break
        parts.append(token[1:-1])
    return "".join(parts)


def _max_threads(attributes: list[str]) -> int:
    if "max_total_threads_per_threadgroup" not in attributes:
        return MAX_THREADS
    return int(attributes[attributes.index("max_total_threads_per_threadgroup") + 2].rstrip("uU"), 0)


def _parameters(tokens: list[str], line: int) -> tuple[Parameter, ...]:
    parameters: list[Parameter] = []
    taken: set[int] = set()
    for declaration in split(tokens):
        parameter = _parameter(declaration, taken, line)
        taken.add(parameter.buffer)
        parameters.append(parameter)
    return tuple(parameters)


def _parameter(declaration: list[str], taken: set[int], line: int) -> Parameter:
    begin = declaration.index("[[") if "[[" in declaration else len(declaration)
    code, attributes = declaration[:begin], declaration[begin:]
    for name in attributes:
        if name in POSITIONS:
            return Parameter(f"metal_cpu::position<{_value_type(code)}>(t.{POSITIONS[name]})")
        if name in NUMBERS:
            return Parameter(NUMBERS[name])
    if "threadgroup" in attributes:
        reason = f"'{code[-1]}' is threadgroup memory that the host allocates; torch.mps.compile_shader cannot"
        raise ShaderError(f"{SOURCE_NAME}:{line}: error: {reason}")
    if "buffer" in attributes:
        buffer = int(attributes[attributes.index("buffer") + 2])
    else:
        buffer = next(i for i in range(len(taken) + 1) if i not in taken)
    if "*" not in code and "&" not in code and "[" not in code:
        reason = f"invalid type of parameter '{join(code)}': a kernel takes buffers and positions"
        raise ShaderError(f"{SOURCE_NAME}:{line}: error: {reason}")
    if not ADDRESS_SPACES & set(code):
        reason = f"parameter '{join(code)}' has no address space: device, constant or threadgroup"
        raise ShaderError(f"{SOURCE_NAME}:{line}: error: {reason}")
    kind = "Reference" if "&" in code else "Pointer"
    return Parameter(f"metal_cpu::{kind}{{b[{buffer}]}}", buffer, bool({"const", "constant"} & set(code)))


def _value_type(code: list[str]) -> str:
    return join([token for token in code[:-1] if token not in ("const", "constexpr")])


def _launchers(kernels: list[Kernel]) -> str:
    lines = [
        '\n#line 1 "launcher"',
        'extern "C" void metal_cpu_run(void (*)(void**), void**, const uint*, const uint*, void*);',
    ]
    for i, kernel in enumerate(kernels):
        arguments = ", ".join(parameter.expression for parameter in kernel.parameters)
        lines += [
            f'__attribute__((no_sanitize("thread"))) static void metal_cpu_enter_{i}(void** b) {{',
            "  const metal_cpu::Lane& t = *metal_cpu::metal_cpu_lane();",
            f"  (void)t; (void)b; {_callee(kernel)}({arguments});",
            "}",
            'extern "C" __attribute__((visibility("default")))',
            f"void metal_cpu_launch_{i}(void** b, const uint* grid, const uint* group, void* launch) {{",
            f"  metal_cpu_run(metal_cpu_enter_{i}, b, grid, group, launch);",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _callee(kernel: Kernel) -> str:
    function = f"::{kernel.function.removeprefix('::')}"
    return f"static_cast<void (*)({kernel.signature})>({function})" if kernel.signature else function


# ---- literals -----------------------------------------------------------------------------------------------------

_FRACTION = re.compile(r"(\d+\.\d*|\.\d+)([eE][+-]?\d+)?|\d+[eE][+-]?\d+")


def _make_literals_float(tokens: Tokens) -> None:
    """``1.5`` is a float: there is no double that it could be."""
    for at in range(len(tokens)):
        if _FRACTION.fullmatch(tokens[at]):
            tokens.replace(at, at + 1, tokens[at] + "f")


def _convert_between_halves(tokens: Tokens) -> None:
    """``static_cast<T>(x)`` converts half to bfloat and back, which clang refuses: it becomes a function that does.

    Casts to types that are written out and are neither stay as they are.
    """
    for at in range(len(tokens)):
        to = tokens[at + 2]
        named = tokens[at] == "static_cast" and to.isidentifier() and tokens[at + 3] == ">"
        if named and (to in ("half", "bfloat") or not lints.PLAIN_TYPE.fullmatch(to)):
            tokens.replace(at, at + 1, "::metal::cpu_cast")


# ---- declarations -------------------------------------------------------------------------------------------------


def _allocate_threadgroup_variables(tokens: Tokens) -> None:
    """``threadgroup float a[32];`` becomes a reference into the memory of the group.

    As a qualifier of what a pointer or reference points to, the word stays; a macro makes it vanish.
    """
    number = 0
    depth = 0
    for at in range(len(tokens)):
        depth += (tokens[at] == "(") - (tokens[at] == ")")
        if tokens[at] != "threadgroup" or depth:
            continue
        end = tokens.find(";", at)
        declarators = list(split(_without_alignas(tokens.between(at + 1, end))))
        head = declarators[0][: _extent(declarators[0])] if declarators else []
        if not head or {"*", "&", "(", "{", "="} & set(head):
            continue
        kind, text = join(head[:-1]), ""
        for declarator in [declarators[0][_extent(declarators[0]) - 1 :], *declarators[1:]]:
            number += 1
            name, extents = declarator[0], join(declarator[1:])
            alias = f"threadgroup_type_{number}"
            text += f" typedef {kind} {alias}{extents}; {alias}& {name} ="
            text += f" metal_cpu::threadgroup_variable<{alias}, {number}>();"
        tokens.replace(at, end, text[:-1])


def _without_alignas(tokens: list[str]) -> list[str]:
    if "alignas" not in tokens:
        return tokens
    at = tokens.index("alignas")
    return tokens[:at] + tokens[tokens.index(")", at) + 1 :]


def _extent(declarator: list[str]) -> int:
    """How many tokens come before the first ``[`` outside template brackets."""
    depth = 0
    for i, token in enumerate(declarator):
        depth += (token == "<") - (token == ">")
        if token in ("[", "[[") and depth == 0:
            return i
    return len(declarator)


def _set_function_constants(tokens: Tokens, constants: Mapping[int, int | float | bool]) -> None:
    """``constant int n [[function_constant(0)]];`` becomes a constant with its value."""
    declared: dict[str, bool] = {}
    for at in range(len(tokens)):
        if tokens[at] != "function_constant" or tokens[at - 1] != "[[":
            continue
        begin, end = tokens.statement_begin(at), tokens.find(";", at - 1)
        index = int(tokens[at + 2], 0)
        name, kind = tokens[at - 2], join(tokens.between(begin + 1, at - 2))
        declared[name] = index in constants
        value = _literal(constants.get(index, 0))
        tokens.replace(begin, end, f"static constexpr {kind} {name} = {kind}({value})")
    for at in range(len(tokens)):
        if tokens[at] == "is_function_constant_defined":
            known = declared.get(tokens[at + 2], False)
            tokens.replace(at, tokens.closing(at + 1) + 1, str(known).lower())


def _literal(value: int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def unset_function_constants(preprocessed: str, constants: Mapping[int, object]) -> list[int]:
    """The indices of the function constants that the shader needs and that have no value."""
    indices = {int(i) for i in re.findall(r"\[\[\s*function_constant\s*\(\s*(\d+)\s*\)", preprocessed)}
    return sorted(indices - set(constants)) if "is_function_constant_defined" not in preprocessed else []


def _drop_attributes(tokens: Tokens) -> None:
    at = 0
    while at < len(tokens):
        if tokens[at] == "[[":
            end = tokens.closing(at)
            tokens.replace(at, end + 1)
            at = end
        at += 1


def _drop_address_space_overloads(tokens: Tokens) -> None:
    """Keeps one of the functions that differ in nothing but address spaces, where that makes them the same function."""
    seen: dict[tuple[object, ...], list[str]] = {}
    scopes: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token == "}" and scopes:
            scopes.pop()
        elif token == "{":
            begin = tokens.statement_begin(at)
            head = tokens.between(begin, at)
            shape = _without_address_spaces(head)
            if ")" in head and head[0] not in ("if", "for", "while", "switch", "else", "do"):
                end = tokens.closing(at)
                if seen.setdefault((*scopes, shape), head) != head:
                    tokens.replace(begin, end + 1)
                at = end + 1
                continue
            scopes.append(shape if {"namespace", "struct", "class"} & set(head) else f"block {at}")
        at += 1


def _without_address_spaces(head: list[str]) -> str:
    """The head of a function as C++ has it, where ``constant`` is ``const`` and no other address space is anything."""
    words = [
        "const" if word == "constant" else word for word in head if word == "constant" or word not in ADDRESS_SPACES
    ]
    return join([word for word, before in zip(words, ["", *words], strict=False) if not word == before == "const"])
