"""Registry images to Singularity and Apptainer images."""

__version__ = "0.1.0"
