# A config becomes the metadata tar (environment, runscript, labels), exploded as a layer is, with the
# base environment, once a store.


rule metadata:
    input:
        manifest=GRAPH.manifest,
    output:
        tar=paths.METADATA_TAR,
        receipt=paths.METADATA,
    log:
        paths.log("metadata", "{image}"),
    benchmark:
        paths.benchmark("metadata", "{image}")
    group:
        JOBS.image_group
    conda:
        "../envs/sregistry.yml"
    resources:
        **JOBS.light(),
    params:
        python=PARAMS.python,
        version=PARAMS.version_of(paths.METADATA),
        store=PARAMS.store,
        codec=PARAMS.compression("codec"),
        level=PARAMS.compression("level"),
        block_size=PARAMS.compression("block_size"),
        docker_cmd=PARAMS.docker_cmd,
    message:
        "metadata {wildcards.image}"
    shell:
        "{params.python} -m sregistry.stages metadata --manifest {input.manifest:q} {params.store} --codec {params.codec:q}"
        " --level {params.level:q} --block-size {params.block_size} {params.docker_cmd}"
        " --tar {output.tar:q} --output {output.receipt:q} 2> {log:q}"
