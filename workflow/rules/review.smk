"""What a reviewer asks: does the print add up, is it reproduced, does an ablation exceed the noise?"""

VERDICT = [f"{RESULTS}/verdict.{suffix}" for suffix in ("csv", "md", "png", "pdf")]


rule check_means:
    output:
        f"{RESULTS}/audit.csv",
    log:
        f"{RESULTS}/logs/audit.log",
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        paper=printed_numbers,
    message:
        "Recomputing the printed means."
    shell:
        "python -m maskrd audit --output {output:q} > {log:q} 2>&1"


rule judge_claims:
    output:
        f"{RESULTS}/claims.csv",
    log:
        f"{RESULTS}/logs/claims.log",
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        paper=printed_numbers,
        metrics=existing_metrics,
        models=f"{RESULTS}/models",
        backbone=experiment.backbone,
        seeds=" ".join(f"--seed {seed}" for seed in experiment.seeds),
    message:
        "Judging the paper's claims on printed and on reproduced numbers."
    shell:
        "python -m maskrd claims --models {params.models:q} --backbone {params.backbone} {params.seeds} "
        "--output {output:q} > {log:q} 2>&1"


rule judge:
    output:
        csv=VERDICT[0],
        page=VERDICT[1],
        png=VERDICT[2],
        pdf=VERDICT[3],
    log:
        f"{RESULTS}/logs/verdict.log",
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        paper=printed_numbers,
        metrics=existing_metrics,
        models=f"{RESULTS}/models",
        backbone=experiment.backbone,
        seeds=" ".join(f"--seed {seed}" for seed in experiment.seeds),
    message:
        "Comparing the printed numbers with the models at hand."
    shell:
        "python -m maskrd verdict --models {params.models:q} --backbone {params.backbone} {params.seeds} "
        "--csv {output.csv:q} --page {output.page:q} --png {output.png:q} --pdf {output.pdf:q} > {log:q} 2>&1"


rule paired:
    input:
        lambda wildcards: metrics_files(wildcards.table),
    output:
        csv=f"{RESULTS}/tables/{{table}}_paired.csv",
        html=report(
            f"{RESULTS}/tables/{{table}}_paired.html",
            caption="../report/table.rst",
            category="Tables",
            labels=lambda wildcards: {
                "table": report_name(wildcards.table),
                "shows": "paired differences",
            },
        ),
    log:
        f"{RESULTS}/logs/table/{{table}}_paired.log",
    wildcard_constraints:
        table="|".join(experiment.tables),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        report=report_json("table"),
        models=f"{RESULTS}/models",
    message:
        "Writing the paired differences of {wildcards.table}."
    shell:
        "python -m maskrd paired --report {params.report:q} --models {params.models:q} "
        "--csv {output.csv:q} --html {output.html:q} > {log:q} 2>&1"
