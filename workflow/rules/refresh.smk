# What tags mean now against what they meant, asked of the registries; nothing is made, and nothing of it kept but
# results/refresh.json:
#
#     snakemake refresh --configfile batch.yaml


rule change:
    input:
        asked_now,
    output:
        temp("results/change/{image}.json"),
    log:
        "logs/change/{image}.log",
    benchmark:
        "benchmarks/change/{image}.tsv"
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
        version=VERSION,
        uri=of("uri"),
        client=of("client"),
        platform=of("platform"),
        locked=locked,
        pinned=pinned_manifest,
        cache=CACHE,
        cache_from=CACHE_FROM,
    message:
        "change {params.uri}"
    shell:
        "{params.python} -m sregistry.stages change --uri {params.uri:q} --client {params.client:q} --platform {params.platform:q} {params.locked}"
        " --pinned {params.pinned:q} --cache {params.cache:q} {params.cache_from} --output {output:q} 2> {log:q}"


rule tagchange:
    input:
        asked_now,
    output:
        temp("results/change/{pattern}.tags.json"),
    log:
        "logs/tagchange/{pattern}.log",
    benchmark:
        "benchmarks/tagchange/{pattern}.tsv"
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
        version=VERSION,
        uri=of_pattern("repository"),
        client=of_pattern("client"),
        tags=of_pattern("tags"),
        newest=newest,
        before=tags_before,
        cache=CACHE,
    message:
        "tagchange {params.uri}:{params.tags}"
    shell:
        "{params.python} -m sregistry.stages tagchange --uri {params.uri:q} --client {params.client:q} --tags {params.tags:q} {params.newest}"
        " --before {params.before:q} --cache {params.cache:q} --output {output:q} 2> {log:q}"


rule refresh:
    input:
        changes_of_all,
    log:
        "logs/refresh.log",
    benchmark:
        "benchmarks/refresh.tsv"
    localrule: True
    conda:
        "../envs/sregistry.yml"
    params:
        python=PYTHON,
        version=VERSION,
        output=str(PLACE / "refresh.json"),
    message:
        "refresh"
    shell:
        "{params.python} -m sregistry.stages refresh {input:q} --output {params.output:q} 2> {log:q}"
