# A layer becomes a blob in the store, then exploded: compressed squashfs blocks and an index of its
# entries. One job a digest, however many images name it. What a digest names never changes, so the
# times of these receipts say nothing: `ancient`.


rule layer:
    input:
        manifests=ancient(GRAPH.manifests_of_layer),
    output:
        paths.LAYER,
    log:
        paths.log("layer", "{digest}"),
    benchmark:
        paths.benchmark("layer", "{digest}")
    # Before the other rules: cores then work while the network does.
    priority: 10
    localrule: JOBS.network_here
    conda:
        "../envs/sregistry.yml"
    threads: JOBS.network_threads
    resources:
        **JOBS.networked(network=JOBS.layer_network, runtime=JOBS.transfer_time),
    params:
        python=PARAMS.python,
        version=PARAMS.version_of(paths.LAYER),
        store=PARAMS.store,
        connections=PARAMS.unwatched(JOBS.layer_connections),
        limit=PARAMS.layer_limit,
    message:
        "layer {wildcards.digest:.19}, connections: {params.connections}"
    shell:
        "{params.python} -m sregistry.stages layer --manifest {input.manifests:q} --digest {wildcards.digest:q} {params.store}"
        " --connections {params.connections} --limit {params.limit} --output {output:q} 2> {log:q}"


rule explode:
    input:
        layer=blob,
        manifests=ancient(GRAPH.manifests_of_layer),
    output:
        paths.EXPLODED,
    log:
        paths.log("explode", "{digest}.{variant}"),
    benchmark:
        paths.benchmark("explode", "{digest}.{variant}")
    group:
        JOBS.layer_group
    conda:
        "../envs/sregistry.yml"
    threads: JOBS.explode_threads
    resources:
        **JOBS.light(mem_mb=JOBS.explode_memory, runtime=JOBS.explode_time),
    params:
        python=PARAMS.python,
        version=PARAMS.version_of(paths.EXPLODED),
        store=PARAMS.store,
        codec=PARAMS.compression("codec"),
        level=PARAMS.compression("level"),
        block_size=PARAMS.compression("block_size"),
        limit=PARAMS.layer_limit,
    message:
        "explode {wildcards.digest:.19}, threads: {threads}"
    shell:
        "{params.python} -m sregistry.stages explode --layer {input.layer:q} --manifest {input.manifests:q} {params.store} --codec {params.codec:q}"
        " --level {params.level:q} --block-size {params.block_size} --limit {params.limit} --threads {threads}"
        " --output {output:q} 2> {log:q}"
