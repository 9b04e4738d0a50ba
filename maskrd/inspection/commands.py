"""The commands that the rules `train` and `evaluate` run for a model. People can run them by hand."""

from maskrd.config.experiment import Experiment
from maskrd.config.files import Files
from maskrd.config.settings import Model


def train_command(experiment: Experiment, model: Model, threads: int | None = None) -> list[str]:
    """The words of the training command. In a rule, Snakemake adds the numbers of threads and of GPU jobs."""
    all_files = Files(experiment)
    files = all_files.model(model)
    recipe = experiment.recipe(model.dataset, files.trained.variant)
    return [
        *_start("train", experiment, model),
        *("--recipe", recipe.training_json(), "--seed", str(model.seed)),
        *("--model", str(files.weights), "--history", str(files.history), "--store", str(all_files.store)),
        *_machine(experiment, threads),
    ]


def evaluate_command(experiment: Experiment, model: Model, threads: int | None = None) -> list[str]:
    """The words of the test command, as `train_command`."""
    files = Files(experiment).model(model)
    recipe = experiment.recipe(model.dataset, model.variant)
    return [
        *_start("evaluate", experiment, model),
        *("--model", str(files.weights), "--recipe", recipe.training_json(), "--evaluation", recipe.evaluation_json()),
        *("--metrics", str(files.metrics), "--scores", str(files.scores), "--gallery", str(files.gallery)),
        *_machine(experiment, threads),
    ]


def _start(command: str, experiment: Experiment, model: Model) -> list[str]:
    files = Files(experiment)
    return [
        *("python", "-m", "maskrd", command, "--index", str(files.index(model.dataset, model.category))),
        *("--data", str(files.data(model.dataset)), "--teacher", str(files.teacher(model.backbone))),
    ]


def _machine(experiment: Experiment, threads: int | None) -> list[str]:
    return ["--device", experiment.device, *([] if threads is None else ["--threads", str(threads)])]
