"""The report, a folder for the browser. Tables and figures are marked for `snakemake --report` as well."""


rule curves:
    input:
        lambda wildcards: views.histories(wildcards.dataset),
    output:
        files.report("curves_{dataset}.png"),
    log:
        files.log("curves", "{dataset}"),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        title=lambda wildcards: experiment.datasets[wildcards.dataset].title,
    message:
        "Drawing the training curves of {wildcards.dataset}."
    shell:
        "python -m maskrd curves {input:q} --title {params.title:q} --output {output:q} > {log:q} 2>&1"


# Unlike `verdict`, it waits for all models of the tables before it judges them.
rule report:
    input:
        metrics=lambda wildcards: views.reported_metrics(),
        tables=lambda wildcards: views.report_tables(),
        figures=lambda wildcards: views.report_figures(),
        curves=lambda wildcards: views.report_curves(),
    output:
        page=files.report("index.html"),
        models=directory(files.report("models")),
        archive=files.report_archive,
    log:
        files.log("report"),
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        paper=lambda wildcards: paper_digest(),
        others=lambda wildcards: views.metrics_digest(views.reported_metrics()),
        parts=lambda wildcards, input: " ".join(
            repeat_option(f"--{name}", input[name])
            for name in ("tables", "figures", "curves")
        ),
        models=str(files.models),
        folder=lambda wildcards, output: str(Path(output.page).parent),
        backbone=experiment.backbone,
        seeds=repeat_option("--seed", experiment.seeds),
        titles=lambda wildcards: json.dumps(
            {name: dataset.title for name, dataset in experiment.datasets.items()}
        ),
    message:
        "Open {output.page} in a browser. {output.archive} is the same folder as one file."
    shell:
        "python -m maskrd report --models {params.models:q} --backbone {params.backbone} {params.seeds} "
        "--titles {params.titles:q} {params.parts} --folder {params.folder:q} --archive {output.archive:q} "
        "> {log:q} 2>&1"
