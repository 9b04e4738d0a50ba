"""A reviewer's questions: do the reported numbers add up? Are they reproduced? Is an ablation beyond noise?"""


rule audit:
    output:
        files.audit,
    log:
        files.log("audit"),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        paper=lambda wildcards: paper_digest(),
    message:
        "Recomputing the reported means: {output}."
    shell:
        "python -m maskrd audit --output {output:q} > {log:q} 2>&1"


# It judges the models that exist when it starts. Ask for it again after further trainings.
rule verdict:
    output:
        csv=files.verdict("csv"),
        page=files.verdict("md"),
        png=files.verdict("png"),
        pdf=files.verdict("pdf"),
        claims=files.claims,
    log:
        files.log("verdict"),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        paper=lambda wildcards: paper_digest(),
        metrics=lambda wildcards: views.metrics_digest(),
        models=str(files.models),
        backbone=experiment.backbone,
        seeds=repeat_option("--seed", experiment.seeds),
    message:
        "Comparing the reported numbers with the models that exist: {output.page}. The paper's claims: {output.claims}."
    shell:
        "python -m maskrd verdict --models {params.models:q} --backbone {params.backbone} {params.seeds} "
        "--csv {output.csv:q} --page {output.page:q} --png {output.png:q} --pdf {output.pdf:q} "
        "--claims {output.claims:q} > {log:q} 2>&1"


rule paired:
    input:
        lambda wildcards: views.metrics(wildcards.table),
    output:
        csv=files.paired("{table}", "csv"),
        html=report(
            files.paired("{table}", "html"),
            caption="../report/table.rst",
            category="Tables",
            labels=lambda wildcards: {
                "table": report_name(wildcards.table),
                "shows": "paired differences",
            },
        ),
    log:
        files.log("paired", "{table}"),
    wildcard_constraints:
        table="|".join(experiment.tables),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        view=lambda wildcards: views.view_json(wildcards.table),
        models=str(files.models),
    message:
        "Writing the paired differences of {wildcards.table}."
    shell:
        "python -m maskrd paired --view {params.view:q} --models {params.models:q} "
        "--csv {output.csv:q} --html {output.html:q} > {log:q} 2>&1"
