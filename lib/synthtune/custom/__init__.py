"""Custom data: read from the files people have, checked before any training, never silently lost.

    own = read("my_task.yaml")
    print(own.report)
    own.gold, own.unlabelled, own.test

Reading imports no model and no training library.
"""

from synthtune.custom.reading import read

__all__ = ["read"]
