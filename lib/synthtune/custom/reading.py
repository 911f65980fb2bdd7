"""Read what a task file names, check it, and say what was found."""

from pathlib import Path

import pandas as pd

from synthtune import settings
from synthtune.custom import checks, gather, hub, readers, task_file
from synthtune.custom.gather import Columns, Gathered
from synthtune.custom.report import Count, Guess, Problem, Report, problem
from synthtune.custom.rows import CustomData, held_out, template_of
from synthtune.custom.task_file import TaskFile
from synthtune.errors import RowsError
from synthtune.metrics import joined_labels, split_labels

# Labelled rows up to which folds are made on reading already; of more, when training starts, for it takes a while.
FOLDS_LOOKED_AT = 2_000


def read(path: str | Path) -> CustomData:
    """Read and check everything a task file names.

    Parameters
    ----------
    path : path
        The task file.

    Raises
    ------
    SettingsError
        The task file itself cannot be used. What is wrong with the rows is not raised: it is in the report.
    """
    task = task_file.load(path)
    chosen = settings.load(task.profile)
    report = Report(f"{task.name}: {task.description or 'no description'}")
    gathered: dict[str, Gathered] = {}
    for role, file in _files(task, report.guesses).items():
        try:
            table = hub.open_table(task, role, file) if task.hub else readers.open_table(
                task.located(file), file, split="test" if role == "test" else "train", separator=task.separator,
                encoding=task.encoding, sheet=task.sheet)
            report.guesses.extend(table.guesses)
            if role == "rows":
                columns, guesses, problems = gather.choose(table, task)
            elif "rows" in gathered:
                columns, guesses, problems = gather.choose_like(gathered["rows"].columns, table, labelled=role == "test")
            else:
                continue  # nothing says which columns to read
            report.guesses.extend(guesses)
            report.problems.extend(problems)
            if columns and not problems:
                gathered[role] = gather.gather(table, role, columns, chosen.seed)
        except RowsError as error:
            said = _without(str(error), file)
            report.problems.append(_no_rows(role, file, said) if isinstance(error, readers.EmptyFile) and role != "rows"
                                   else problem("file", file, said=said))
    own = _checked(task, chosen, report, gathered)
    _left_out(own)
    _not_testable(own, chosen)
    return own


def _left_out(own: CustomData) -> None:
    """Name what else is taken for what the task file leaves out: the profile, and what the teacher is told to do."""
    said, guesses = own.task.model_fields_set, own.report.guesses
    if "profile" not in said:
        why = "the default, made for a computer without a GPU"
        guesses.insert(0, Guess(own.task.path.name, "profile", own.task.profile, why))
    if not own.task.description and own.columns:
        why = f"made from the name of column '{own.columns.output}'; it is what the teacher is told to do"
        guesses.append(Guess(own.task.path.name, "description", template_of(own).instruction, why))


def _not_testable(own: CustomData, chosen: settings.Settings) -> None:
    """Note where no division of the rows leaves something to learn and something to test, so that nobody waits for it."""
    if own.report.errors or len(own.gold) > FOLDS_LOOKED_AT:
        return
    try:
        held_out(own, chosen)
    except RowsError as error:
        file = own.task.rows
        own.report.problems.append(problem("not testable", file, said=_without(str(error), file)))


def _files(task: TaskFile, guesses: list[Guess]) -> dict[str, str]:
    """The files by role, the labelled rows first; a datasets folder may hold the test rows too."""
    files = {"rows": task.rows, "unlabelled": task.unlabelled, "test": task.test}
    if not task.test and {"train", "test"} <= set(readers.splits(task.located(task.rows))):
        files["test"] = task.rows
        guesses.append(Guess(task.rows, "test", f"{task.rows}, split test", "the folder has such a split"))
    return {role: file for role, file in files.items() if file}


def _no_rows(role: str, file: str, what: str) -> Problem:
    """A file that has no rows; only the labelled ones cannot be done without."""
    return problem("no rows" if role == "rows" else "nothing read", file, said=what, role=role)


def _without(sentence: str, file: str) -> str:
    return sentence.removeprefix(file).removeprefix(",").removeprefix(":").strip().rstrip(".")


def _checked(task: TaskFile, chosen: settings.Settings, report: Report, gathered: dict[str, Gathered]) -> CustomData:
    """Check cells, then rows against each other, and count where each row went."""
    columns = gathered["rows"].columns if "rows" in gathered else None
    task_type = columns.task_type if columns else ""
    sieves = _sieved(task, report, gathered, task_type)
    if "rows" in sieves:
        sieves["rows"].check_near()
        if task_type == "classification":
            report.problems.extend(checks.labels(sieves["rows"], task.label_names))
            if "test" in sieves:
                report.problems.extend(checks.unknown_labels(sieves["test"], sieves["rows"]))
    for role, sieve in sieves.items():
        sieve.check_length(chosen.custom.max_tokens)
        report.problems.extend(sieve.problems)
        dropped = {reason: len(rows) for reason, rows in sieve.dropped.items()}
        count = Count(gathered[role].table.file, role, gathered[role].rows_in, len(sieve.frame), dropped)
        report.counts.append(count)
        if not count.rows_in:
            report.problems.append(_no_rows(role, count.file, "no rows below the names of the columns"))
        elif not count.used:
            report.problems.append(problem("no row used", count.file))
    gold, unlabelled, test = (_table(sieves[role].frame if role in sieves else None, columns, task.label_names)
                              for role in ("rows", "unlabelled", "test"))
    if task_type == "classification":
        each = gold["output"].map(lambda output: split_labels(output, columns.separator)).explode()
        report.labels.update(each.value_counts().astype(int).to_dict())
    labels = tuple(sorted(gold["output"].unique())) if report.labels else ()
    unlabelled = unlabelled.drop(columns="output", errors="ignore")
    return CustomData(task, task_type, labels, gold, unlabelled, test, report, columns, gathered)


def _sieved(task: TaskFile, report: Report, gathered: dict[str, Gathered], task_type: str) -> dict[str, checks.Sieve]:
    """The rows of each file without those that cannot be used, or are also in a file where they are worth more."""
    spelling = checks.spellings(gathered, task.label_names) if task_type == "classification" else {}
    sieves = {}
    for role, each in gathered.items():
        report.problems.extend(checks.cells(each))
        if spelling and each.columns.output:
            report.problems.extend(checks.label_spelling(each, spelling))
        sieves[role] = sieve = checks.Sieve(each, checks.cleaned(each, spelling))
        sieve.without_empty()
        sieve.without_duplicates()
        if spelling and each.columns.output:
            sieve.without_contradictions()
    # In the order of what is worth most: test rows stay as they are, gold rows are not also unlabelled.
    for role, other in (("rows", "test"), ("unlabelled", "test"), ("unlabelled", "rows")):
        if role in sieves and other in sieves:
            sieves[role].without_known(sieves[other])
    return sieves


def _table(frame: pd.DataFrame | None, columns: Columns | None, names: dict[str, str]) -> pd.DataFrame:
    """A table as it is handed on: label names in words, rows numbered anew."""
    if frame is None:
        roles = columns.roles if columns else ("text", "output")
        return pd.DataFrame({name: [] for name in roles}, dtype=str).assign(row=pd.Series(dtype=int))
    frame = frame[[*(name for name in frame if name != "row"), "row"]].reset_index(drop=True)
    if names and "output" in frame:
        mark = columns.separator
        frame["output"] = frame["output"].map(lambda output: joined_labels(
            (names.get(label, label) for label in split_labels(output, mark)), mark))
    return frame
