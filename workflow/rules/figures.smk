"""Figures, from the anomaly maps that `heatmaps` keeps."""


rule figure:
    input:
        lambda wildcards: heatmap_files(wildcards.figure),
    output:
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda wildcards: {"figure": report_name(wildcards.figure)},
        ),
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
    log:
        f"{RESULTS}/logs/figure/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(experiment.figures),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        report=report_json("figure"),
        models=f"{RESULTS}/models",
    message:
        "Drawing {wildcards.figure}."
    shell:
        "python -m maskrd figure --report {params.report:q} --models {params.models:q} "
        "--png {output.png:q} --pdf {output.pdf:q} > {log:q} 2>&1"
