# A reference becomes manifest.json: every manifest fetched, the config, the chosen platform.


rule manifest:
    input:
        refreshed,
    output:
        # Kept while it is asked again: if that fails, the image stays what it is.
        update("results/{image}/manifest.json"),
    log:
        "logs/manifest/{image}.log",
    benchmark:
        "benchmarks/manifest/{image}.tsv"
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
        version=version("results/{image}/manifest.json", refreshing),
        uri=of("uri"),
        client=of("client"),
        platform=of("platform"),
        locked=locked,
        # What is in the image's place is compared; a tag means the same, whatever is made of it.
        format=of("format", watched=False),
        target=of("path", watched=False),
        replacing=replacing,
        cache=CACHE,
        cache_from=CACHE_FROM,
    message:
        "manifest {params.uri}"
    shell:
        "{params.python} -m sregistry.stages manifest --uri {params.uri:q} --client {params.client:q} --platform {params.platform:q} {params.locked}"
        " --format {params.format:q} --target {params.target:q} {params.replacing} --cache {params.cache:q} {params.cache_from} --output {output:q} 2> {log:q}"


# One for all images: the graph grows once, not once an image.
checkpoint manifests:
    input:
        targets=targets_of_all,
        manifests=manifests_of_all,
    output:
        GATHERED,
    log:
        f"logs/manifests/{BATCH}.log",
    benchmark:
        f"benchmarks/manifests/{BATCH}.tsv"
    localrule: True
    conda:
        "../envs/sregistry.yml"
    params:
        python=PYTHON,
        version=version(GATHERED),
    message:
        "manifests {output}"
    shell:
        "{params.python} -m sregistry.stages manifests {input.manifests:q} --output {output:q} 2> {log:q}"
