# What tags mean now against what they meant, asked of the registries; nothing is made, and nothing of it kept but
# results/refresh.json:
#
#     snakemake refresh --configfile batch.yaml


rule refresh:
    input:
        GRAPH.questions,
    log:
        paths.log("refresh", BATCH),
    benchmark:
        paths.benchmark("refresh", BATCH)
    localrule: JOBS.network_here
    conda:
        "../envs/sregistry.yml"
    threads: JOBS.network_threads
    resources:
        **JOBS.networked(network=JOBS.all_network),
    params:
        python=PARAMS.python,
        version=PARAMS.version,
        store=PARAMS.store,
        connections=JOBS.connections,
        output=PARAMS.changes,
    message:
        "refresh"
    shell:
        "{params.python} -m sregistry.stages refresh --questions {input:q} {params.store} --connections {params.connections}"
        " --output {params.output:q} 2> {log:q}"
