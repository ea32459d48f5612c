# A layer becomes a blob in the store, then exploded: compressed squashfs blocks and an index of its
# entries. One job a digest, however many images name it. What a digest names never changes, so the
# times of these receipts say nothing: `ancient`.


rule layer:
    input:
        manifests=ancient(manifests_of_layer),
    output:
        "results/layer/{digest}.json",
    log:
        "logs/layer/{digest}.log",
    benchmark:
        "benchmarks/layer/{digest}.tsv"
    # Before the other rules: cores then work while the network does.
    priority: 10
    localrule: NETWORK_HERE
    conda:
        "../envs/sregistry.yml"
    threads: NETWORK_THREADS
    resources:
        **TRANSFER,
        network=layer_connections,
        mem_mb=500,
        runtime=transfer_time,
        disk_mb=100,
        tmpdir=tmpdir,
    params:
        python=PYTHON,
        version=version("results/layer/{digest}.json"),
        cache=CACHE,
        cache_from=CACHE_FROM,
        limit=LAYER_LIMIT,
    message:
        "layer {wildcards.digest:.19}, connections: {resources.network}"
    shell:
        "{params.python} -m sregistry.stages layer --manifest {input.manifests:q} --digest {wildcards.digest:q} --cache {params.cache:q} {params.cache_from}"
        " --connections {resources.network} --limit {params.limit} --output {output:q} 2> {log:q}"


rule explode:
    input:
        layer=blob_of_layer,
        manifests=ancient(manifests_of_layer),
    output:
        "results/explode/{digest}.{variant}.json",
    log:
        "logs/explode/{digest}.{variant}.log",
    benchmark:
        "benchmarks/explode/{digest}.{variant}.tsv"
    group:
        group_of_layer
    conda:
        "../envs/sregistry.yml"
    threads: explode_threads
    resources:
        mem_mb=explode_memory,
        runtime=explode_time,
        disk_mb=100,
        tmpdir=tmpdir,
    params:
        python=PYTHON,
        version=version("results/explode/{digest}.{variant}.json"),
        cache=CACHE,
        cache_from=CACHE_FROM,
        codec=compression("codec"),
        level=compression("level"),
        block_size=compression("block_size"),
        limit=LAYER_LIMIT,
    message:
        "explode {wildcards.digest:.19}, threads: {threads}"
    shell:
        "{params.python} -m sregistry.stages explode --layer {input.layer:q} --manifest {input.manifests:q} --cache {params.cache:q} {params.cache_from} --codec {params.codec:q}"
        " --level {params.level:q} --block-size {params.block_size} --limit {params.limit} --threads {threads}"
        " --output {output:q} 2> {log:q}"
