# A pattern becomes the tags that it means, pinned as a manifest is; then all images of the batch are known.
# Without patterns nothing of this runs.


rule tags:
    input:
        GRAPH.stamp,
    output:
        # Kept while it is asked again: if that fails, the images stay what they are.
        update(paths.TAGS),
    log:
        paths.log("tags", "{pattern}"),
    benchmark:
        paths.benchmark("tags", "{pattern}")
    localrule: JOBS.network_here
    conda:
        "../envs/sregistry.yml"
    threads: JOBS.network_threads
    resources:
        **JOBS.networked(),
    params:
        python=PARAMS.python,
        version=PARAMS.version_of(paths.TAGS, GRAPH.asks_again),
        uri=PARAMS.pattern_field("repository"),
        client=PARAMS.pattern_field("client"),
        tags=PARAMS.pattern_field("tags"),
        newest=PARAMS.newest,
        store=PARAMS.store,
    message:
        "tags {params.uri}:{params.tags}"
    shell:
        "{params.python} -m sregistry.stages tags --uri {params.uri:q} --client {params.client:q} --tags {params.tags:q} {params.newest}"
        " {params.store} --output {output:q} 2> {log:q}"


# One for all patterns. The graph grows with it once, and once more with the manifests.
checkpoint targets:
    input:
        GRAPH.tag_lists,
    output:
        GRAPH.choice,
    log:
        paths.log("targets", BATCH),
    benchmark:
        paths.benchmark("targets", BATCH)
    localrule: True
    conda:
        "../envs/sregistry.yml"
    params:
        python=PARAMS.python,
        version=PARAMS.version,
    message:
        "targets {output}"
    shell:
        "{params.python} -m sregistry.stages gather-tags {input:q} --output {output:q} 2> {log:q}"


# A pattern that has no tags fails by itself, when all images know of each other.
rule pattern:
    input:
        paths.TAGS,
    output:
        paths.NO_TAGS,
    log:
        paths.log("pattern", "{pattern}"),
    benchmark:
        paths.benchmark("pattern", "{pattern}")
    localrule: True
    conda:
        "../envs/sregistry.yml"
    params:
        python=PARAMS.python,
        version=PARAMS.version,
    message:
        "pattern {wildcards.pattern}"
    shell:
        "{params.python} -m sregistry.stages report-tags --list {input:q} 2> {log:q}"
