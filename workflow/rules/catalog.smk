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
    conda:
        "../envs/sregistry.yml"
    params:
        version=VERSION,
        database=str(SETTINGS.database),
    message:
        "catalog {wildcards.image}"
    shell:
        "python3 -m sregistry.stage catalog --manifest {input.manifest:q} --image {input.image:q} --database {params.database:q}"
        " --output {output:q} 2> {log:q}"
