"""Registry images to Singularity and Apptainer images."""

__version__ = "0.2.0"
