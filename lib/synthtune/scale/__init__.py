"""Devices, several processes or GPUs, the planner and SLURM."""
