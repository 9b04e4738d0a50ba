"""Tables, made from metrics.json files and nothing else."""


rule table:
    input:
        metrics=lambda wildcards: views.metrics(wildcards.table),
        speed=lambda wildcards: views.speed(wildcards.table),
    output:
        csv=files.table("{table}", "csv"),
        tex=files.table("{table}", "tex"),
        html=report(
            files.table("{table}", "html"),
            caption="../report/table.rst",
            category="Tables",
            labels=lambda wildcards: {
                "table": report_name(wildcards.table),
                "shows": "metrics",
            },
        ),
    log:
        files.log("table", "{table}"),
    wildcard_constraints:
        table="|".join(experiment.tables),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        view=lambda wildcards: views.view_json(wildcards.table),
        paper=lambda wildcards: paper_digest(),
        models=str(files.models),
        speed=lambda wildcards, input: repeat_option("--speed", input.speed),
    message:
        "Writing {wildcards.table}."
    shell:
        "python -m maskrd table --view {params.view:q} --models {params.models:q} "
        "--csv {output.csv:q} --tex {output.tex:q} --html {output.html:q} {params.speed} > {log:q} 2>&1"


rule tex:
    input:
        [files.table(name, "tex") for name in views.paper_tables],
    output:
        files.supplement("tex"),
    log:
        files.log("tex"),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        paper=lambda wildcards: paper_digest(),
        views=lambda wildcards: repeat_option(
            "--view", map(views.view_json, views.paper_tables)
        ),
        tables=lambda wildcards, input: str(Path(input[0]).parent),
    message:
        "Writing the supplement."
    shell:
        "python -m maskrd tex {params.views} --tables {params.tables:q} --output {output:q} > {log:q} 2>&1"


rule pdf:
    input:
        document=files.supplement("tex"),
        tables=[files.table(name, "tex") for name in views.paper_tables],
    output:
        files.supplement("pdf"),
    log:
        files.log("pdf"),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    message:
        "Typesetting {input.document}."
    shell:
        "python -m maskrd pdf --tex {input.document:q} --output {output:q} > {log:q} 2>&1"
