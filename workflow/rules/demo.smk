"""The demo has generated images and small teachers instead of downloads."""


rule generate:
    output:
        files.generated_marker("{dataset}", "{part}"),
    log:
        files.log("generate", "{dataset}-{part}"),
    wildcard_constraints:
        dataset="|".join(filter(is_generated, DATASETS)),
    conda:
        "../../envs/maskrd.yaml"
    params:
        folder=lambda wildcards: str(files.data(wildcards.dataset)),
    message:
        "Generating images of {wildcards.dataset}/{wildcards.part}."
    shell:
        "python -m maskrd generate --dataset {wildcards.dataset} --part {wildcards.part} --folder {params.folder:q} "
        "--output {output:q} > {log:q} 2>&1"


rule pretrain:
    output:
        files.teacher("{backbone}"),
    log:
        files.log("pretrain", "{backbone}"),
    wildcard_constraints:
        backbone="demo_.*",
    # Before other jobs: all trainings wait for teachers.
    priority: 1
    conda:
        "../../envs/maskrd.yaml"
    # Small networks gain little from a second thread, and much from running side by side.
    threads: 1
    message:
        "Pre-training {wildcards.backbone} on generated textures."
    shell:
        "python -m maskrd pretrain --backbone {wildcards.backbone} --output {output:q} --threads {threads} > {log:q} 2>&1"
