"""The library's modules form layers: none imports, however indirectly, a module that imports it."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest
import synthtune

PACKAGE = Path(synthtune.__file__).parent


def modules():
    """Every module of the package by its name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["synthtune", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path, known):
    """Modules of the package that one imports, anywhere in it but for type checkers."""
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{name}" for name in names]
            # A name of a package is a module of its own, or is defined in the package itself.
            names = [name if name in known else node.module for name in whole]
        yield from (name for name in names if name in known)


GRAPH = {name: set(imports(path, modules())) for name, path in modules().items()}

STUDY, PLANNER = "synthtune.custom.study", "synthtune.scale.planner"
METHOD = ("teacher", "annotate", "generate", "mixture", "experiment", "student")
NOT_BELOW = {
    "synthtune.models": (*(f"synthtune.{name}" for name in METHOD if name != "experiment"), "synthtune.analysis", "synthtune.run", STUDY,
                         PLANNER),
    **{f"synthtune.{name}": ("synthtune.analysis", "synthtune.run", STUDY, PLANNER) for name in METHOD},
    "synthtune.analysis": ("synthtune.run", STUDY),
    PLANNER: ("synthtune.models.fine_tuning", "synthtune.models.students", "synthtune.teacher", "synthtune.student"),
    "synthtune.settings": ("synthtune.models.assets", "synthtune.tasks.official", "synthtune.custom.hub"),
}
"""What a module, or any module of a package, does not import, however indirectly."""


def reached(name):
    """All that a module imports, however indirectly."""
    found, left = set(), [name]
    while left:
        more = GRAPH[left.pop()] - found
        found |= more
        left += more
    return found


def within(name, package):
    return name == package or name.startswith(f"{package}.")


def test_no_module_imports_what_imports_it():
    assert GRAPH["synthtune.annotate"] >= {"synthtune.teacher", "synthtune.scale.workers"}, "the imports are found"
    graphlib.TopologicalSorter(GRAPH).prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize("lower", NOT_BELOW)
def test_layers(lower):
    """The method stands on models and knows neither figures nor the command line; planning a run loads no training code."""
    found = {name: reached(name) for name in GRAPH if within(name, lower)}
    assert found and all(any(within(name, package) for name in GRAPH) for package in NOT_BELOW[lower])
    assert not [(name, other) for name, others in found.items() for other in others
                if any(within(other, package) for package in NOT_BELOW[lower])]


def test_settings_load_nothing_heavy():
    heavy = {"torch", "transformers", "huggingface_hub", "datasets", "openai", "urllib.request"}
    subprocess.run([sys.executable, "-c", f"import sys, synthtune.settings\nassert not {heavy} & sys.modules.keys()"],
                   env={"PYTHONPATH": str(PACKAGE.parent)}, check=True)
