"""Tables, from the metrics.json files that they name and nothing else."""


rule table:
    input:
        metrics=lambda wildcards: metrics_files(wildcards.table),
        speed=lambda wildcards: speed_file(wildcards.table),
    output:
        csv=f"{RESULTS}/tables/{{table}}.csv",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        html=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="../report/table.rst",
            category="Tables",
            labels=lambda wildcards: {
                "table": report_name(wildcards.table),
                "shows": "metrics",
            },
        ),
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
        speed=lambda wildcards, input: words("--speed", input.speed),
    message:
        "Writing {wildcards.table}."
    shell:
        "python -m maskrd table --report {params.report:q} --models {params.models:q} "
        "--csv {output.csv:q} --tex {output.tex:q} --html {output.html:q} {params.speed} > {log:q} 2>&1"


rule speed:
    input:
        models=lambda wildcards: [
            weights_file(model) for model in speed_models(wildcards.table)
        ],
        teachers=lambda wildcards: [
            f"{RESULTS}/teachers/{model.backbone}.safetensors"
            for model in speed_models(wildcards.table)
        ],
    output:
        f"{RESULTS}/speed/{{table}}.json",
    log:
        f"{RESULTS}/logs/speed/{{table}}.log",
    wildcard_constraints:
        table="|".join(experiment.tables),
    conda:
        "../../envs/maskrd.yaml"
    # As many as there are, up to a training's: alone on a small machine.
    threads: 8
    resources:
        gpu=1,
    params:
        report=report_json("table"),
        models=lambda wildcards, input: words("--model", input.models),
        teachers=lambda wildcards, input: words("--teacher", input.teachers),
        device=lambda wildcards, input: experiment.device,
    message:
        "Measuring the speed of the methods in {wildcards.table}."
    shell:
        "python -m maskrd speed --report {params.report:q} {params.models} {params.teachers} "
        "--device {params.device} --threads {threads} --output {output:q} > {log:q} 2>&1"


rule supplement_tex:
    input:
        [f"{RESULTS}/tables/{name}.tex" for name in PAPER_TABLES],
    output:
        f"{RESULTS}/supplement.tex",
    log:
        f"{RESULTS}/logs/supplement.log",
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        paper=printed_numbers,
        reports=lambda wildcards: words(
            "--report",
            [canonical_json(experiment.report(name)) for name in PAPER_TABLES],
        ),
        tables=lambda wildcards, input: str(Path(input[0]).parent),
    message:
        "Writing the supplement."
    shell:
        "python -m maskrd supplement {params.reports} --tables {params.tables:q} --output {output:q} > {log:q} 2>&1"


rule supplement_pdf:
    input:
        document=f"{RESULTS}/supplement.tex",
        tables=[f"{RESULTS}/tables/{name}.tex" for name in PAPER_TABLES],
    output:
        f"{RESULTS}/supplement.pdf",
    log:
        f"{RESULTS}/logs/supplement_pdf.log",
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    message:
        "Typesetting {input.document}."
    shell:
        "python -m maskrd pdf --tex {input.document:q} --output {output:q} > {log:q} 2>&1"
