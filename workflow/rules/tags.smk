# A pattern becomes the tags that it means, pinned as a manifest is; then all images of the batch are known.
# Without patterns nothing of this runs.


rule tags:
    input:
        refreshed,
    output:
        # Kept while it is asked again: if that fails, the images stay what they are.
        update("results/tags/{pattern}.json"),
    log:
        "logs/tags/{pattern}.log",
    benchmark:
        "benchmarks/tags/{pattern}.tsv"
    localrule: NETWORK_HERE
    conda:
        "../envs/sregistry.yml"
    threads: NETWORK_THREADS
    resources:
        **TRANSFER,
        network=1,
        mem_mb=500,
        runtime=20,
        disk_mb=100,
        tmpdir=tmpdir,
    params:
        python=PYTHON,
        version=version("results/tags/{pattern}.json", refreshing),
        uri=of_pattern("repository"),
        client=of_pattern("client"),
        tags=of_pattern("tags"),
        newest=newest,
        cache=CACHE,
    message:
        "tags {params.uri}:{params.tags}"
    shell:
        "{params.python} -m sregistry.stages tags --uri {params.uri:q} --client {params.client:q} --tags {params.tags:q} {params.newest}"
        " --cache {params.cache:q} --output {output:q} 2> {log:q}"


# One for all patterns. The graph grows with it once, and once more with the manifests.
checkpoint targets:
    input:
        lists_of_tags,
    output:
        CHOSEN,
    log:
        f"logs/targets/{BATCH}.log",
    benchmark:
        f"benchmarks/targets/{BATCH}.tsv"
    localrule: True
    conda:
        "../envs/sregistry.yml"
    params:
        python=PYTHON,
        version=VERSION,
    message:
        "targets {output}"
    shell:
        "{params.python} -m sregistry.stages targets {input:q} --output {output:q} 2> {log:q}"


# A pattern that has no tags fails by itself, when all images know of each other.
rule pattern:
    input:
        "results/tags/{pattern}.json",
    output:
        "results/tags/{pattern}.failed",
    log:
        "logs/pattern/{pattern}.log",
    benchmark:
        "benchmarks/pattern/{pattern}.tsv"
    localrule: True
    conda:
        "../envs/sregistry.yml"
    params:
        python=PYTHON,
        version=VERSION,
    message:
        "pattern {wildcards.pattern}"
    shell:
        "{params.python} -m sregistry.stages pattern --list {input:q} 2> {log:q}"
