# A sandbox becomes the image in the storage folder, whole or not at all; the receipt vouches for it. What
# the registry has as a SIF is taken as it is: then there is neither metadata nor sandbox.


rule image:
    input:
        unpack(parts_of_image),
    output:
        "results/{image}/image.json",
    log:
        "logs/image/{image}.log",
    benchmark:
        "benchmarks/image/{image}.tsv"
    group:
        group_of_image
    conda:
        "../envs/sregistry.yml"
    threads: BUILD_THREADS
    resources:
        mem_mb=tree_memory,
        runtime=image_time,
        disk_mb=image_disk,
        tmpdir=tmpdir,
    params:
        python=PYTHON,
        version=version("results/{image}/image.json"),
        parts=as_options,
        format=of("format"),
        target=of("path"),
        replacing=replacing,
        builder=SETTINGS.builder,
        level=compression("level"),
    message:
        "image {params.target}, threads: {threads}"
    shell:
        "{params.python} -m sregistry.stages image {params.parts} --format {params.format:q} --target {params.target:q} {params.replacing}"
        " --builder {params.builder:q} --level {params.level:q} --threads {threads} --output {output:q} 2> {log:q}"
