"""The report of a run: pages for `snakemake --report`."""
