"""The package's own two corpora, made by seeded grammars in official formats.

Real WebNLG and Schema-Guided Dialogue are too large and too encumbered to ship. `facts` and `dialogues` write
corpora in exactly their formats, so that the readers in `synthtune.tasks` take either. All wording is this
package's own.
"""
