# What `snakemake --report report.html` shows beside Snakemake's own statistics. The pages are no job's:
# they are written from receipts, benchmarks and logs when a report is asked for, so that a run spends
# nothing on them, and one of whose images some failed has a report too.

# Found from here, not from the file that asks for it.
CAPTIONS = workflow.current_basedir.join("../report")

# Not empty once a run has ended: `--report-after-run` makes its report in the same process.
RAN = []


@functools.cache
def pages_folder():
    """Where the pages are written: with the results of a run; without one, as nothing there may change, until this process ends."""
    if RAN:
        return PLACE / "report" / BATCH
    folder = scratch.without_braces()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def reported(wildcards):
    """The pages, marked for the report; none while jobs are run."""
    running = workflow.execution_settings is not None and not RAN
    if running or not MAIN or not any((PLACE / image).is_dir() for image in TARGETS):
        return []
    from sregistry.pipeline.report import data as overview, pages

    asked = [overview.Asked(key, target.uri, str(target.path), target.compression.variant) for key, target in TARGETS.items()]
    try:
        found = overview.read(PLACE.parent, asked, others=[BATCH, *PATTERNS])
        written = pages.write(found, pages_folder())
    except SregistryError as error:
        refuse(error, error.exit_code)

    def marked(path, name, title):
        return report(path, caption=CAPTIONS.join(f"{name}.rst"), category="Overview", labels={"page": title})

    return list(map(marked, written, pages.PAGES, pages.PAGES.values()))
