"""The library's modules form layers: none imports, however indirectly, a module that imports it."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

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


def test_no_module_imports_what_imports_it():
    known = modules()
    graph = {name: set(imports(path, known)) for name, path in known.items()}
    assert graph["synthtune.scale.worker"] >= {"synthtune.annotate", "synthtune.scale.workers"}, "the imports are found"
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_settings_import_no_downloader_and_load_none():
    """They may ask the hub which commit a name means; what fetches files stands above them."""
    known, reached, left = modules(), set(), ["synthtune.settings"]
    while left:
        name = left.pop()
        more = set(imports(known[name], known)) - reached
        reached |= more
        left += more
    assert "synthtune.models.names" in reached
    assert not reached & {"synthtune.models.assets", "synthtune.tasks.official", "synthtune.custom.hub"}
    heavy = {"torch", "transformers", "huggingface_hub", "datasets", "openai", "urllib.request"}
    subprocess.run([sys.executable, "-c", f"import sys, synthtune.settings\nassert not {heavy} & sys.modules.keys()"],
                   env={"PYTHONPATH": str(PACKAGE.parent)}, check=True)
