"""Figures, made from the galleries of test jobs."""


rule figure:
    input:
        lambda wildcards: views.galleries(wildcards.figure),
    output:
        png=report(
            files.figure("{figure}", "png"),
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda wildcards: {"figure": report_name(wildcards.figure)},
        ),
        pdf=files.figure("{figure}", "pdf"),
    log:
        files.log("figure", "{figure}"),
    wildcard_constraints:
        figure="|".join(experiment.figures),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        view=lambda wildcards: views.view_json(wildcards.figure),
        models=str(files.models),
    message:
        "Drawing {wildcards.figure}."
    shell:
        "python -m maskrd figure --view {params.view:q} --models {params.models:q} "
        "--png {output.png:q} --pdf {output.pdf:q} > {log:q} 2>&1"
