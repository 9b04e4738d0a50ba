"""Tables, from the metrics.json files that they name and nothing else."""


rule table:
    input:
        lambda wildcards: metrics_files(wildcards.table),
    output:
        csv=f"{RESULTS}/tables/{{table}}.csv",
        tex=f"{RESULTS}/tables/{{table}}.tex",
    log:
        f"{RESULTS}/logs/table/{{table}}.log",
    wildcard_constraints:
        table="|".join(experiment.tables),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        report=report_json("table"),
        models=f"{RESULTS}/models",
    message:
        "Writing {wildcards.table}."
    shell:
        "python -m maskrd table --report {params.report:q} --models {params.models:q} "
        "--csv {output.csv:q} --tex {output.tex:q} > {log:q} 2>&1"
