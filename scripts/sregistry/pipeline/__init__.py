"""A run of the pipeline: what Snakemake needs, and what people are told."""
