# An image becomes a record in the catalog.


rule catalog:
    input:
        manifest=GRAPH.manifest,
        image=paths.IMAGE,
    output:
        paths.RECORD,
    log:
        paths.log("catalog", "{image}"),
    benchmark:
        paths.benchmark("catalog", "{image}")
    group:
        JOBS.image_group
    conda:
        "../envs/sregistry.yml"
    resources:
        **JOBS.light(),
    params:
        python=PARAMS.python,
        version=PARAMS.version_of(paths.RECORD),
        database=PARAMS.database,
        builder=PARAMS.builder,
        codec=PARAMS.compression("codec"),
        level=PARAMS.compression("level"),
        block_size=PARAMS.compression("block_size"),
        docker_cmd=PARAMS.docker_cmd,
    message:
        "catalog {wildcards.image}"
    shell:
        "{params.python} -m sregistry.stages catalog --manifest {input.manifest:q} --image {input.image:q} --database {params.database:q}"
        " --builder {params.builder:q} --codec {params.codec:q} --level {params.level:q} --block-size {params.block_size} {params.docker_cmd}"
        " --output {output:q} 2> {log:q}"
