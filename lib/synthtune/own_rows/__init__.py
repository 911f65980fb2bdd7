"""A user's own rows: read from the files people have, checked before any training, never silently lost.

    own = read("my_task.yaml")
    print(own.report)
    own.gold, own.unlabelled, own.test

Reading imports no model and no training library.
"""

from synthtune.own_rows.gather import Columns
from synthtune.own_rows.reading import read
from synthtune.own_rows.report import Problem, Report
from synthtune.own_rows.rows import OwnRows
from synthtune.own_rows.task_file import TaskFile

__all__ = ["Columns", "OwnRows", "Problem", "Report", "TaskFile", "read"]
