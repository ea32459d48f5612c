# An image becomes a record in the catalog.


rule catalog:
    input:
        manifest=manifest_of_image,
        image="results/{image}/image.json",
    output:
        "results/{image}/record.json",
    log:
        "logs/catalog/{image}.log",
    benchmark:
        "benchmarks/catalog/{image}.tsv"
    group:
        group_of_image
    conda:
        "../envs/sregistry.yml"
    resources:
        mem_mb=500,
        runtime=10,
        disk_mb=100,
        tmpdir=tmpdir,
    params:
        python=PYTHON,
        version=version("results/{image}/record.json"),
        database=database,
        builder=SETTINGS.builder,
        codec=compression("codec"),
        level=compression("level"),
        block_size=compression("block_size"),
        docker_cmd="--docker-cmd" if SETTINGS.docker_cmd else "",
    message:
        "catalog {wildcards.image}"
    shell:
        "{params.python} -m sregistry.stages catalog --manifest {input.manifest:q} --image {input.image:q} --database {params.database:q}"
        " --builder {params.builder:q} --codec {params.codec:q} --level {params.level:q} --block-size {params.block_size} {params.docker_cmd}"
        " --output {output:q} 2> {log:q}"
