"""Custom data: read from the files people have, checked before any training, never silently lost.

    own = read("my_task.yaml")
    print(own.report)
    own.gold, own.unlabelled, own.test

Reading imports no model and no training library.
"""

from synthtune.custom.gather import Columns
from synthtune.custom.reading import read
from synthtune.custom.report import Problem, Report
from synthtune.custom.rows import CustomData
from synthtune.custom.task_file import TaskFile

__all__ = ["Columns", "CustomData", "Problem", "Report", "TaskFile", "read"]
