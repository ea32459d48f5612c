# Base environment, layers and metadata become one root file system: an index into exploded data.


rule sandbox:
    input:
        manifest=GRAPH.manifest,
        metadata=paths.METADATA,
        layers=ancient(GRAPH.exploded_layers),
    output:
        paths.SANDBOX,
    log:
        paths.log("sandbox", "{image}"),
    benchmark:
        paths.benchmark("sandbox", "{image}")
    group:
        JOBS.image_group
    conda:
        "../envs/sregistry.yml"
    resources:
        **JOBS.light(mem_mb=JOBS.tree_memory, runtime=20),
    params:
        python=PARAMS.python,
        version=PARAMS.version_of(paths.SANDBOX),
    message:
        "sandbox {wildcards.image}"
    shell:
        "{params.python} -m sregistry.stages sandbox --manifest {input.manifest:q} --metadata {input.metadata:q} --output {output:q}"
        " {input.layers:q} 2> {log:q}"
