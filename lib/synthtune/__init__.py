"""synthtune: turn a few labels into many with a fine-tuned language model, and measure what that is worth.

Reproduces Kaddour & Liu, *Synthetic Data Generation in Low-Resource Settings via Fine-Tuning of Large Language
Models*, arXiv 2310.01119.
"""

import gc

# Importing torch and transformers makes hundreds of thousands of objects and no garbage. Python looks through them again and again
# after every 700 new ones: a seventh of the time that an import takes.
gc.set_threshold(10_000)

__version__ = "0.1.0"
