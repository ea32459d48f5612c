# A reference becomes manifest.json: every manifest fetched, the config, the chosen platform.


rule manifest:
    input:
        GRAPH.stamp,
    output:
        # Kept while it is asked again: if that fails, the image stays what it is.
        update(paths.MANIFEST),
    log:
        paths.log("manifest", "{image}"),
    benchmark:
        paths.benchmark("manifest", "{image}")
    localrule: JOBS.network_here
    conda:
        "../envs/sregistry.yml"
    threads: JOBS.network_threads
    resources:
        **JOBS.networked(),
    params:
        python=PARAMS.python,
        version=PARAMS.version_of(paths.MANIFEST, GRAPH.asks_again),
        uri=PARAMS.target_field("uri"),
        client=PARAMS.target_field("client"),
        platform=PARAMS.target_field("platform"),
        locked=PARAMS.locked,
        # What is in the image's place is compared; a tag means the same, whatever is made of it.
        format=PARAMS.target_field("format", watched=False),
        target=PARAMS.target_field("path", watched=False),
        replacing=PARAMS.replacing,
        store=PARAMS.store,
    message:
        "manifest {params.uri}"
    shell:
        "{params.python} -m sregistry.stages manifest --uri {params.uri:q} --client {params.client:q} --platform {params.platform:q} {params.locked}"
        " --format {params.format:q} --target {params.target:q} {params.replacing} {params.store} --output {output:q} 2> {log:q}"


# One for all images: the graph grows once, not once an image.
checkpoint manifests:
    input:
        targets=GRAPH.chosen_tags,
        manifests=GRAPH.manifests,
    output:
        GRAPH.gathering,
    log:
        paths.log("manifests", BATCH),
    benchmark:
        paths.benchmark("manifests", BATCH)
    localrule: True
    conda:
        "../envs/sregistry.yml"
    params:
        python=PARAMS.python,
        version=PARAMS.version_of(GRAPH.gathering),
    message:
        "manifests {output}"
    shell:
        "{params.python} -m sregistry.stages gather-layers {input.manifests:q} --output {output:q} 2> {log:q}"
