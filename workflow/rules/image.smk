# A sandbox becomes the image in the storage folder, whole or not at all; the receipt vouches for it.


rule image:
    input:
        manifest=manifest_of_image,
        metadata="results/{image}/metadata.json",
        sandbox="results/{image}/sandbox.index",
    output:
        "results/{image}/image.json",
    log:
        "logs/image/{image}.log",
    benchmark:
        "benchmarks/image/{image}.tsv"
    conda:
        "../envs/sregistry.yml"
    threads: BUILD_THREADS
    params:
        version=VERSION,
        format=of("format"),
        target=of("path"),
        builder=SETTINGS.builder,
        level=COMPRESSION.level,
    shell:
        "python3 -m sregistry.stage image --manifest {input.manifest:q} --metadata {input.metadata:q} --sandbox {input.sandbox:q}"
        " --format {params.format:q} --target {params.target:q} --builder {params.builder:q} --level {params.level:q}"
        " --threads {threads} --output {output:q} 2> {log:q}"
