# What `snakemake --report report.html` shows beside Snakemake's own statistics. The pages are no job's:
# they are written from receipts, benchmarks and logs when a report is asked for, so that a run spends
# nothing on them, and one of whose images some failed has a report too.


def reported(wildcards):
    """The pages, marked for the report."""
    pages = GRAPH.report_pages(wildcards)
    return [report(path, caption=HOST.caption(name), category="Overview", labels={"page": title}) for path, name, title in pages]
