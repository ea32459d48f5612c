# Base environment, layers and metadata become one root file system: an index into exploded data.


rule sandbox:
    input:
        manifest=manifest_of_image,
        metadata="results/{image}/metadata.json",
        layers=ancient(exploded_layers),
    output:
        "results/{image}/sandbox.index",
    log:
        "logs/sandbox/{image}.log",
    benchmark:
        "benchmarks/sandbox/{image}.tsv"
    group:
        group_of_image
    conda:
        "../envs/sregistry.yml"
    resources:
        mem_mb=tree_memory,
        runtime=20,
        disk_mb=100,
        tmpdir=tmpdir,
    params:
        python=PYTHON,
        version=version("results/{image}/sandbox.index"),
    message:
        "sandbox {wildcards.image}"
    shell:
        "{params.python} -m sregistry.stages sandbox --manifest {input.manifest:q} --metadata {input.metadata:q} --output {output:q}"
        " {input.layers:q} 2> {log:q}"
