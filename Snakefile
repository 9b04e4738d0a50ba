# Every table and figure of the paper. The main targets:
#
#   snakemake --cores 8 tables      Tables 1 to 7 (the default)
#   snakemake --cores 8 table5      one of them; every table and figure in config.yaml is a target
#   snakemake --cores 8 robustness  every ablation_... table: how much depends on choices where the paper is silent
#   snakemake --cores 8 supplement  Tables 1 to 7 as one PDF, with the errata of the reported ones; needs a TeX engine
#   snakemake --cores 8 anomaly_maps
#                                   maps of all trained models as TIFF files, in the layout of MVTec's evaluation code
#   snakemake --cores 1 audit       do the reported numbers add up? Seconds, no data
#   snakemake --cores 1 verdict     which reported numbers and claims are reproduced so far; trains nothing
#   snakemake --cores 8 report      one page of everything, for the browser
#   snakemake --cores 8 -n          what would be run
#
# config.yaml is the experiment; `--configfile mine.yaml` is merged over it. If Snakemake runs in another folder,
# config.yaml is the one in that folder. It may be absent: common.smk fills in every key that is missing.
from pathlib import Path

from snakemake.utils import min_version

# common.smk can't read the limits of resources of older versions, which have another type. Tried: 9.20 and 9.27.
min_version("9.20")

if Path("config.yaml").exists():

    configfile: "config.yaml"


# For `--sdm apptainer`; ignored without it. docs/cluster.md says how to make the image.
container: "maskrd.sif"


# The first page of `snakemake --report`.
report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# The first rule is the default target.
rule tables:
    input:
        [views.table_files(name) for name in views.paper_tables],
    localrule: True
    message:
        f"Tables of the paper are in {files.results}/tables."


for name in experiment.tables:

    rule:
        name:
            name
        input:
            views.table_files(name),
        localrule: True


for name in experiment.figures:

    rule:
        name:
            name
        input:
            views.figure_files(name),
        localrule: True


rule robustness:
    input:
        [
            views.table_files(name)
            for name in experiment.tables
            if name.startswith("ablation_")
        ],
    localrule: True
    message:
        f"Ablations are in {files.results}/tables."


rule supplement:
    input:
        files.supplement("tex"),
        files.supplement("pdf"),
    localrule: True
    message:
        "All tables, with the errata of the reported ones: {input[1]}."


rule downloads:
    input:
        data.from_network(),
    localrule: True
    message:
        "All downloads are here. The rest runs offline."


rule anomaly_maps:
    input:
        lambda wildcards: views.map_folders(),
    localrule: True
    message:
        "Anomaly maps of all trained models are in {files.results}/anomaly_maps."


rule models:
    input:
        [views.weights(name) for name in experiment.tables],
    localrule: True
    message:
        "All models of all tables are trained."


include: "workflow/rules/data.smk"
include: "workflow/rules/demo.smk"


if not experiment.partial:  # `partial: true` trains nothing and shows what exists

    include: "workflow/rules/train.smk"
    include: "workflow/rules/speed.smk"


include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/review.smk"
include: "workflow/rules/report.smk"
