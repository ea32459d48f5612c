# A sandbox becomes the image in the storage folder, whole or not at all; the receipt vouches for it. What
# the registry has as a SIF is taken as it is: then there is neither metadata nor sandbox.


rule image:
    input:
        unpack(GRAPH.parts),
    output:
        paths.IMAGE,
    log:
        paths.log("image", "{image}"),
    benchmark:
        paths.benchmark("image", "{image}")
    group:
        JOBS.image_group
    conda:
        "../envs/sregistry.yml"
    threads: JOBS.image_threads
    resources:
        **JOBS.light(mem_mb=JOBS.tree_memory, runtime=JOBS.image_time, disk_mb=JOBS.image_disk),
    params:
        python=PARAMS.python,
        version=PARAMS.version_of(paths.IMAGE),
        parts=PARAMS.as_options,
        format=PARAMS.target_field("format"),
        target=PARAMS.target_field("path"),
        replacing=PARAMS.replacing,
        builder=PARAMS.builder,
        level=PARAMS.compression("level"),
    message:
        "image {params.target}, threads: {threads}"
    shell:
        "{params.python} -m sregistry.stages image {params.parts} --format {params.format:q} --target {params.target:q} {params.replacing}"
        " --builder {params.builder:q} --level {params.level:q} --threads {threads} --output {output:q} 2> {log:q}"
