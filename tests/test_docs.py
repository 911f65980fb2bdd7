"""What README.md and docs/ name: links, commands, settings, files and modules that must exist."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from synthtune import settings
from synthtune.custom.task_file import TaskFile
from synthtune.run import reproduce

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECTIONS = {name.partition(".")[0] for name in settings.names() if "." in name} | {"endpoint"}
NOT_IN_GIT = ("runs/", ".cache/", ".venv/")


def tokens(page):
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(page):
        yield token
        yield from token.children or []


def code(page):
    """The lines of code blocks, with continuations joined, and the code within sentences, each on one line."""
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            yield from token.content.replace("\\\n", " ").splitlines()
        elif token.type == "code_inline":
            yield " ".join(token.content.split())


def anchors(page):
    """GitHub's anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page, folder):
    found = [token.attrs.get("href") or token.attrs.get("src") for token in tokens(page) if token.type in ("link_open", "image")]
    for link in found:
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else None
        if re.match(r"\w+:", link) or (target is None and anchor in anchors(page)):
            continue
        if target is None or not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            yield link


def unknown_options(page):
    known = set(reproduce._parser()._option_string_actions)
    for line in code(page):
        if "./run_all.sh" in line:
            words = shlex.split(line.partition("./run_all.sh")[2], comments=True)
            yield from (word for word in words if word.startswith("-") and word not in known and "test" not in words)
        elif line.startswith("--"):
            yield from (word for word in shlex.split(line) if word.startswith("--") and word not in known)


def unknown_settings(page):
    known = set(settings.names()) | {f"endpoint.{name}" for name in settings.EndpointSettings.model_fields}
    for line in code(page):
        dotted = re.findall(rf"(?<![\w./-])(?:{'|'.join(SECTIONS)})\.\w+(?![\w/])", line)
        yield from (name for name in dotted if name not in known and not name.endswith((".py", ".csv", ".json")))
        yield from (name for name in re.findall(r"--set\s+(\w[\w.]*)=", line) if name not in known)
    for token in tokens(page):
        if token.type == "fence" and token.info == "yaml":
            for name, value in yaml.safe_load(token.content).items():
                if name in SECTIONS and isinstance(value, dict):
                    yield from (f"{name}.{inner}" for inner in value if f"{name}.{inner}" not in known)
                elif name not in set(TaskFile.model_fields) - {"path"} | known:
                    yield name


def missing_files(page):
    tops = {path.name for path in ROOT.iterdir()}
    for line in code(page):
        for word in line.split():
            path = word.strip("`'\"(),;:").removeprefix("./")
            if path.startswith(NOT_IN_GIT) or re.search(r"[…=*$]", path):
                continue
            if path.partition("/")[0] in tops and not list(ROOT.glob(re.sub(r"<\w+>", "*", path.rstrip("/")))):
                yield path


def missing_modules(page):
    for line in code(page):
        yield from (name for name in re.findall(r"(?<![\w/.-])synthtune(?:\.\w+)+", line) if importlib.util.find_spec(name) is None)


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def path(request):
    return request.param


def test_what_a_page_names_exists(path):
    page = path.read_text("utf-8")
    problems = [*broken_links(page, path.parent), *unknown_options(page), *unknown_settings(page), *missing_files(page),
                *missing_modules(page)]
    assert not problems, f"{path.name} names what does not exist: {problems}"


def test_what_does_not_exist_is_found():
    page = """[a](docs/nothing.md) [b](README.md#nothing) [c](#here) [d](#nowhere) [e](https://example.org) ![f](figures/figure_99.png)

# Here

`teacher.epoch` and `teacher.epochs`, `--sett teacher.epochs=6`, `lib/synthtune/nothing.py`, `workflow/profiles/<name>.yaml`

```bash
./run_all.sh --profil smoke --set \\
    stduents.steps=2   # --no-option
python -m synthtune.nothing --an-option
```

```yaml
rows: a.csv
lable: b
cluster: {partitoin: gpu, account: a}
```
"""
    assert list(broken_links(page, ROOT)) == ["docs/nothing.md", "README.md#nothing", "#nowhere", "figures/figure_99.png"]
    assert list(unknown_options(page)) == ["--sett", "--profil"]
    assert list(unknown_settings(page)) == ["teacher.epoch", "stduents.steps", "lable", "cluster.partitoin"]
    assert list(missing_files(page)) == ["lib/synthtune/nothing.py"]
    assert list(missing_modules(page)) == ["synthtune.nothing"]


def test_tables_have_as_many_cells_in_every_row(path):
    width = 0
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        cells = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) if line.strip().startswith("|") else 0
        assert not (width and cells) or cells == width, f"{path.name}, line {number}: {cells} bars, and {width} above"
        width = cells


def test_the_readme_is_short_and_leads_to_every_page():
    readme = PAGES[0].read_text("utf-8")
    assert len(readme.splitlines()) <= 200
    assert "./run_all.sh test" in readme, "what .ci/run runs"
    linked = {token.attrs["href"].partition("#")[0] for token in tokens(readme) if token.type == "link_open"}
    assert {f"docs/{path.name}" for path in PAGES[1:]} <= linked
