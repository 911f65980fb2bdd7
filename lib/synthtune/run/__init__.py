"""The command line, the environment, and notebooks that are run."""
