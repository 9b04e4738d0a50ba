"""One page of everything for the browser; its parts are marked for `snakemake --report` as well."""

REPORT = f"{RESULTS}/report/index.html"


rule curves:
    input:
        lambda wildcards: history_files(wildcards.dataset),
    output:
        report(
            f"{RESULTS}/report/curves_{{dataset}}.png",
            caption="../report/curves.rst",
            category="Training",
            labels={"shows": "training curves, {dataset}"},
        ),
    log:
        f"{RESULTS}/logs/report/curves_{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    message:
        "Drawing the training curves of {wildcards.dataset}."
    shell:
        "python -m maskrd curves {input:q} --output {output:q} > {log:q} 2>&1"


# Unlike `judge`, after all models of the tables.
rule review:
    input:
        reported_metrics,
    output:
        plot=f"{RESULTS}/report/verdict.png",
        verdict=report(
            f"{RESULTS}/report/verdict.html",
            caption="../report/verdict.rst",
            category="Reported and reproduced",
            labels={"shows": "verdict"},
        ),
        claims=report(
            f"{RESULTS}/report/claims.html",
            category="Reported and reproduced",
            labels={"shows": "the paper's claims"},
        ),
        summary=f"{RESULTS}/report/summary.html",
        runtime=report(
            f"{RESULTS}/report/runtime.html",
            category="Training",
            labels={"shows": "runtime"},
        ),
    log:
        f"{RESULTS}/logs/report/review.log",
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        paper=printed_numbers,
        models=f"{RESULTS}/models",
        backbone=experiment.backbone,
        seeds=" ".join(f"--seed {seed}" for seed in experiment.seeds),
    message:
        "Judging the models at hand."
    shell:
        "python -m maskrd review --models {params.models:q} --backbone {params.backbone} {params.seeds} "
        "--plot {output.plot:q} --verdict {output.verdict:q} --claims {output.claims:q} "
        "--summary {output.summary:q} --runtime {output.runtime:q} > {log:q} 2>&1"


rule page:
    input:
        lambda wildcards: [
            file for files in report_contents().values() for file in files
        ],
    output:
        REPORT,
    log:
        f"{RESULTS}/logs/report/page.log",
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        contents=lambda wildcards: json.dumps(report_contents()),
    message:
        "Putting the report together."
    shell:
        "python -m maskrd report --contents {params.contents:q} --output {output:q} > {log:q} 2>&1"
