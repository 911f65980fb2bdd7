"""synthtune: turn a few labels into many with a fine-tuned language model, and measure what that is worth.

Reproduces Kaddour & Liu, *Synthetic Data Generation in Low-Resource Settings via Fine-Tuning of Large Language
Models*, arXiv 2310.01119.
"""

__version__ = "0.1.0"
