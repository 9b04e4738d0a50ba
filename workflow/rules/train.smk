"""One model at a time: train it, test it, and keep a few anomaly maps for figures.

Parameters that take `input` are left out when Snakemake compares them with the last time: the same images in another
folder, and another device, are no reason to train anew.
"""


rule train:
    input:
        index=f"{RESULTS}/data/{{dataset}}/{{category}}.json",
        teacher=f"{RESULTS}/teachers/{{backbone}}.safetensors",
    output:
        model=f"{MODEL}/model.safetensors",
        history=f"{MODEL}/history.csv",
    log:
        f"{RESULTS}/logs/train/{JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{JOB}.tsv"
    conda:
        "../../envs/maskrd.yaml"
    threads: share_of_cores
    resources:
        gpu=1,
    params:
        data=lambda wildcards, input: data_folder(wildcards.dataset),
        recipe=training_json,
        # Not an output: Snakemake deletes outputs before a job starts, and this must outlive a kill.
        state=f"{RESULTS}/state/{JOB}",
        device=lambda wildcards, input: experiment.device,
    message:
        "Training {wildcards.variant} on {wildcards.dataset}/{wildcards.category} "
        "({wildcards.backbone}, seed {wildcards.seed})."
    shell:
        # exec: signals reach Python, with no shell before it that dies first and takes the unsaved steps along.
        "exec python -m maskrd train --index {input.index:q} --data {params.data:q} --teacher {input.teacher:q} "
        "--recipe {params.recipe:q} --seed {wildcards.seed} "
        "--model {output.model:q} --history {output.history:q} --state {params.state:q} "
        "--device {params.device} --threads {threads} > {log:q} 2>&1"


rule evaluate:
    input:
        index=f"{RESULTS}/data/{{dataset}}/{{category}}.json",
        teacher=f"{RESULTS}/teachers/{{backbone}}.safetensors",
        model=trained_model,
    output:
        metrics=f"{MODEL}/metrics.json",
        scores=f"{MODEL}/scores.csv",
    log:
        f"{RESULTS}/logs/evaluate/{JOB}.log",
    conda:
        "../../envs/maskrd.yaml"
    threads: share_of_cores
    resources:
        gpu=1,
    params:
        data=lambda wildcards, input: data_folder(wildcards.dataset),
        recipe=training_json,
        evaluation=evaluation_json,
        device=lambda wildcards, input: experiment.device,
    message:
        "Testing {wildcards.variant} on {wildcards.dataset}/{wildcards.category} "
        "({wildcards.backbone}, seed {wildcards.seed})."
    shell:
        "exec python -m maskrd evaluate --index {input.index:q} --data {params.data:q} --teacher {input.teacher:q} "
        "--model {input.model:q} --recipe {params.recipe:q} --evaluation {params.evaluation:q} "
        "--metrics {output.metrics:q} --scores {output.scores:q} "
        "--device {params.device} --threads {threads} > {log:q} 2>&1"


rule heatmaps:
    input:
        index=f"{RESULTS}/data/{{dataset}}/{{category}}.json",
        teacher=f"{RESULTS}/teachers/{{backbone}}.safetensors",
        model=trained_model,
    output:
        f"{MODEL}/heatmaps.npz",
    log:
        f"{RESULTS}/logs/heatmaps/{JOB}.log",
    conda:
        "../../envs/maskrd.yaml"
    threads: share_of_cores
    resources:
        gpu=1,
    params:
        data=lambda wildcards, input: data_folder(wildcards.dataset),
        recipe=training_json,
        evaluation=evaluation_json,
        per_defect=images_per_defect,
        device=lambda wildcards, input: experiment.device,
    message:
        "Anomaly maps of {wildcards.variant} on {wildcards.dataset}/{wildcards.category}."
    shell:
        "exec python -m maskrd heatmaps --index {input.index:q} --data {params.data:q} --teacher {input.teacher:q} "
        "--model {input.model:q} --recipe {params.recipe:q} --evaluation {params.evaluation:q} "
        "--count {params.per_defect} --output {output:q} --device {params.device} --threads {threads} > {log:q} 2>&1"
