"""Datasets and teachers, from their sources to checked files."""


rule index:
    input:
        data_source,
    output:
        f"{RESULTS}/data/{{dataset}}/{{category}}.json",
    log:
        f"{RESULTS}/logs/index/{{dataset}}/{{category}}.log",
    threads: 4
    params:
        data=lambda wildcards: data_folder(wildcards.dataset),
        # Data that the user brings may change under us; what the pipeline fetched itself doesn't.
        content=data_digest,
        memory=data_memory,
    message:
        "Checking the images of {wildcards.dataset}/{wildcards.category}."
    conda:
        "../../envs/maskrd.yaml"
    shell:
        "python -m maskrd index --dataset {wildcards.dataset} --category {wildcards.category} --data {params.data:q} "
        "--output {output:q} --memory {params.memory:q} --threads {threads} > {log:q} 2>&1"


rule teacher:
    input:
        teacher_weights,
    output:
        f"{RESULTS}/teachers/{{backbone}}.safetensors",
    log:
        f"{RESULTS}/logs/teacher/{{backbone}}.log",
    threads: 1
    message:
        "Turning the ImageNet weights of {wildcards.backbone} into a teacher."
    conda:
        "../../envs/maskrd.yaml"
    shell:
        "python -m maskrd teacher --backbone {wildcards.backbone} --weights {input:q} --output {output:q} "
        "> {log:q} 2>&1"
