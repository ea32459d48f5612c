# A config becomes the metadata tar (environment, runscript, labels), exploded as a layer is, with the
# base environment, once a store.


rule metadata:
    input:
        manifest=manifest_of_image,
    output:
        tar="results/{image}/metadata.tar",
        receipt="results/{image}/metadata.json",
    log:
        "logs/metadata/{image}.log",
    benchmark:
        "benchmarks/metadata/{image}.tsv"
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
        version=version("results/{image}/metadata.json"),
        cache=CACHE,
        cache_from=CACHE_FROM,
        codec=compression("codec"),
        level=compression("level"),
        block_size=compression("block_size"),
        docker_cmd="--docker-cmd" if SETTINGS.docker_cmd else "",
    message:
        "metadata {wildcards.image}"
    shell:
        "{params.python} -m sregistry.stages metadata --manifest {input.manifest:q} --cache {params.cache:q} {params.cache_from} --codec {params.codec:q}"
        " --level {params.level:q} --block-size {params.block_size} {params.docker_cmd}"
        " --tar {output.tar:q} --output {output.receipt:q} 2> {log:q}"
