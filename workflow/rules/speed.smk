"""How fast a table's methods test: only for tables with `costs: true`."""


rule speed:
    input:
        models=lambda wildcards: [
            files.model(model).weights for model in views.timed_models(wildcards.table)
        ],
        teachers=lambda wildcards: [
            teacher_file(model.backbone)
            for model in views.timed_models(wildcards.table)
        ],
    output:
        files.speed("{table}"),
    log:
        files.log("speed", "{table}"),
    wildcard_constraints:
        table="|".join(experiment.tables),
    conda:
        "../../envs/maskrd.yaml"
    # On a small machine it takes all cores, so that no other job runs at the same time.
    threads: 8
    resources:
        gpu=1,
    params:
        recipes=lambda wildcards: views.recipes_json(wildcards.table),
        # With `input` Snakemake doesn't compare it: a new caption measures nothing again.
        view=lambda wildcards, input: views.view_json(wildcards.table),
        models=lambda wildcards, input: repeat_option("--model", input.models),
        teachers=lambda wildcards, input: repeat_option("--teacher", input.teachers),
        device=lambda wildcards, input: experiment.device,
    message:
        "Measuring the speed of the methods in {wildcards.table}."
    shell:
        "python -m maskrd speed --view {params.view:q} {params.models} {params.teachers} "
        "--device {params.device} --threads {threads} --output {output:q} > {log:q} 2>&1"
