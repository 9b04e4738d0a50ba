"""Every command that the documentation shows runs, whole or reduced by a rule that says how.

Commands are the lines of ```bash blocks and the inline code of several words that begins with one of PROGRAMS. The
```yaml blocks whose first line is a comment with a name are the files that commands name. A command that no rule takes,
or two do, fails.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from maskrd.config.settings import Evaluation
from maskrd.files import MARKER
from tests.conftest import ROOT

if TYPE_CHECKING:
    from maskrd.engine.inputs import TrainingJob

FOLDERS = ("", "docs", "docs/results", "results", "benchmarks")
DOCUMENTS = [path.relative_to(ROOT).as_posix() for name in FOLDERS for path in sorted((ROOT / name).glob("*.md"))]
PROGRAMS = ("make", "snakemake", "maskrd", "python", ".venv/bin/")
WALK = "snakemake --cores 2 --configfile workflow/config/demo.yaml small.yaml"
TWO_CATEGORIES = "datasets={mvtec_ad: {categories: [bottle, transistor]}, cifar10: {categories: [cat, ship]}}"
CELL = "results/walk/models/demo/weave/maskrd/demo_resnet18/seed0"
Runner = Callable[[list[str]], str]


@dataclass
class Setting:
    """What rules run commands in and with."""

    folder: Path
    run: Runner
    model: Callable[[], "TrainingJob"]  # trained and tested


@dataclass(frozen=True)
class Rule:
    """Which commands, as a regular expression of the whole, and what is done with them."""

    commands: str
    handle: Callable[[Setting, str], object]


def words_of(setting: Setting, command: str) -> list[str]:
    """As bash reads the command: without quotes and comments, and with braces expanded."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], cwd=setting.folder, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


def as_written(setting: Setting, command: str) -> str:
    return setting.run(words_of(setting, command))


def with_words(*words: str) -> Callable[[Setting, str], str]:
    """The command with further options at its end; the last one of an option counts."""
    return lambda setting, command: setting.run([*shlex.split(command, comments=True), *words])


def planned(setting: Setting, command: str) -> str:
    """Snakemake's plan instead of the run; of two categories where the command has no configuration of its own.

    -n comes first: after --configfile or --config it would be swallowed. tests/workflow plans the whole paper.
    """
    program, *words = words_of(setting, command)
    small = [] if {"--configfile", "--config"} & set(words) else ["--config", TWO_CATEGORIES]
    return setting.run([program, *small, "-n", *words])


def with_nothing_to_report(setting: Setting, command: str) -> None:
    """Snakemake's report of an unfinished run names the first file that is missing."""
    with pytest.raises(AssertionError, match="marked for report but does not exist"):
        as_written(setting, command)


def in_shell(setting: Setting, command: str) -> None:
    done = subprocess.run(["bash", "-ec", command], cwd=setting.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def targets_of_make(setting: Setting, command: str) -> None:
    """What make would do; .venv counts as made, by an environment that is not ours to build."""
    in_shell(setting, command.partition("#")[0].rstrip() + " -n")


def preloading_nothing(setting: Setting, command: str) -> None:
    in_shell(setting, f"{shlex.quote(sys.executable)}{command.removeprefix('python')} true")


def is_active(setting: Setting, command: str) -> None:
    """The tests' environment is active already; the Makefile makes the one that the command names."""
    assert ".venv/bin/activate" in command
    assert "-m venv .venv" in (ROOT / "Makefile").read_text(encoding="utf-8")


def with_small_images(setting: Setting, command: str) -> None:
    """The walk's cell, of one epoch, with the teacher of random weights that the fixture puts there."""
    words = shlex.split(command)
    place = words.index("--")
    setting.run([*words[:place], "--config", "train={epochs: 1, image_size: 32}", *words[place:]])
    assert (setting.folder / CELL / "metrics.json").exists()


def uv_knows(setting: Setting, command: str) -> None:
    """Options and the version of torch; nothing is installed. The index can't be asked from here."""
    words = shlex.split(command)
    versions = [word for word in words if "==" in word]
    assert all(version in (ROOT / "requirements.lock").read_text(encoding="utf-8") for version in versions)
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv, "make setup puts uv into .venv"
    done = subprocess.run([uv, *words[1:], "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert words[words.index("--torch-backend") + 1] in done.stdout


def with_a_model(setting: Setting, command: str) -> None:
    """MODEL, IMAGES... and FOLDER become files; the teacher, too, since the model is not in a results folder."""
    job = setting.model()
    images = sorted((job.data / "bolt/test/crack").iterdir())
    filled = command.replace("MODEL", str(job.model)).replace("IMAGES...", shlex.join(map(str, images)))
    setting.run(shlex.split(f"{filled.replace('FOLDER', 'scored')} --teacher {job.teacher}"))
    assert (setting.folder / "scored/scores.csv").exists()


SNAKEMAKE = r"(\.venv/bin/)?snakemake "
AUDIT = rf"{SNAKEMAKE}--cores 1 audit verdict"
REPORT = rf"{SNAKEMAKE}--report\b"
RULES = (
    Rule(r"make [a-z-]+( TORCH=cpu)?( +#.*)?", targets_of_make),
    Rule(r"source \.venv/bin/activate", is_active),
    Rule(r"(mkdir -p|cp( -r)?) results/.*", in_shell),
    Rule(AUDIT, as_written),
    Rule(rf"{WALK} -- {CELL}/metrics\.json", with_small_images),
    Rule(rf"(?!{AUDIT}$)(?!{WALK} -- {CELL})(?!{REPORT}){SNAKEMAKE}.*", planned),
    Rule(rf"{REPORT}.*", with_nothing_to_report),
    Rule(r"maskrd verify .*", as_written),
    Rule(r"maskrd (explain .+|(prune|status)\b.*)", as_written),
    # `plan` measures every network for half a minute, tests/test_plan.py small ones; `train` is named, not shown.
    Rule(r"maskrd (verify|explain|plan|train|predict|schema( .*)?|compare A B|--help)", with_words("--help")),
    Rule(r"maskrd predict MODEL IMAGES\.\.\. .*", with_a_model),
    Rule(r"maskrd export( MODEL .*)?", with_words("--help")),
    Rule(rf"maskrd predict {CELL}.*", as_written),
    # Wrong options fail before --help is answered; tests/test_benchmarks.py runs all three.
    Rule(r"python benchmarks/\w+\.py.*", with_words("--help")),
    Rule(r"python docs/results/tables\.py", as_written),
    Rule(r"python -m maskrd\.preloaded", preloading_nothing),
    Rule(r"\.venv/bin/uv pip install .*", uv_knows),
    Rule(r"\.venv/bin/python -c .*", as_written),
)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """In the order of the text, comments at the ends of lines included."""
    found = []
    for block, inline in re.findall(r"^ *```bash\n(.*?)^ *```|`([^`\n]+)`", without_other_blocks(text), re.M | re.S):
        found += [line.strip() for line in block.splitlines() if line.strip() and not line.strip().startswith("#")]
        if inline.startswith(PROGRAMS) and " " in inline:
            found.append(inline)
    return found


def without_other_blocks(text: str) -> str:
    return re.sub(r"^( *)```(?!bash)\w+\n.*?^\1```", "", text, flags=re.M | re.S)


def files(text: str) -> dict[str, str]:
    """The files that a document shows, by name."""
    return dict(re.findall(r"^```yaml\n# ([\w.]+\.yaml)\n(.*?)^```", text, re.M | re.S))


def place_files(setting: Setting, text: str) -> None:
    """The files that a document shows, and empty folders where they say that images lie.

    The folders may be replaced by commands that generate images there.
    """
    for name, content in files(text).items():
        (setting.folder / name).write_text(content, encoding="utf-8")
        for dataset, entry in yaml.safe_load(content).get("datasets", {}).items():
            folder = Path(entry.get("path", "/"))
            if folder.is_absolute():  # no place of a test's
                continue
            for category in entry["categories"]:
                (setting.folder / folder / category / "train/good").mkdir(parents=True, exist_ok=True)
                (setting.folder / folder / category / MARKER).touch()
            if dataset == "cifar10":
                (setting.folder / folder / "test_batch.bin").touch()


def rules_of(command: str) -> list[Rule]:
    return [rule for rule in RULES if re.fullmatch(rule.commands, command)]


@pytest.fixture(scope="session")
def run_in() -> Callable[[Path], Runner]:
    """Makes what runs a command line in a folder and returns its output; failures fail the test."""
    server = subprocess.Popen(
        [sys.executable, ROOT / "tests/preloaded.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=ROOT, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(Path.home()),
                       "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    def run(folder: Path, words: list[str]) -> str:
        words = [words[0].removeprefix(".venv/bin/"), *words[1:]]
        server.stdin.write(json.dumps([str(folder), words]) + "\n")
        server.stdin.flush()
        code, output = json.loads(server.stdout.readline())
        assert code == 0, f"{shlex.join(words)}\n{output[-3000:]}"
        return output

    yield lambda folder: lambda words: run(folder, words)
    server.stdin.close()
    server.wait(timeout=600)


@pytest.fixture
def setting(
    tmp_path_factory: pytest.TempPathFactory,
    training_job: "Callable[..., TrainingJob]",
    evaluation: Callable[..., Evaluation],
    teacher_file: Path,
    run_in: Callable[[Path], Runner],
) -> Setting:
    """A copy of what git would clone, in which the demo's small teacher needs no pre-training."""
    from maskrd.engine.evaluation import EvaluationJob, evaluate
    from maskrd.engine.machine import Machine
    from maskrd.engine.training import train

    def model() -> "TrainingJob":
        job = training_job(epochs=1)
        train(job)
        test = EvaluationJob(job.index, job.data, job.teacher, job.model, evaluation(), job.recipe, Machine("cpu"))
        outputs = (job.model.with_name(name) for name in ("metrics.json", "scores.csv", "gallery.npz"))
        evaluate(test, *outputs)
        return job

    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "results/walk/teachers").mkdir(parents=True)
    shutil.copy(teacher_file, folder / "results/walk/teachers/demo_resnet18.safetensors")
    return Setting(folder, run_in(folder), model)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_has_one_rule(document: str) -> None:
    wrong = {command: len(rules_of(command)) for command in commands(text_of(document)) if len(rules_of(command)) != 1}
    assert not wrong, "commands and how many rules of tests/test_docs.py take them"


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if commands(text_of(name))])
def test_the_commands_of_a_document_run(document: str, setting: Setting) -> None:
    place_files(setting, text_of(document))
    for command in commands(text_of(document)):
        (rule,) = rules_of(command)
        rule.handle(setting, command)


def test_the_walks_on_generated_data_download_nothing(setting: Setting) -> None:
    """They promise minutes without a network; a file's default figure may ask for more than its tables."""
    text = text_of("docs/reviewers.md")
    place_files(setting, text)
    walks = [command for command in commands(text) if "small.yaml" in command or "parts.yaml" in command]
    plans = [planned(setting, command) for command in walks if command.startswith("snakemake ")]
    assert len(plans) >= 5
    assert not [plan for plan in plans if re.search(r"^download", plan, re.M)]


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text_of(document)):
            assert (folder / target).exists(), f"{document}: {target}"


def test_a_command_that_no_rule_takes_is_found() -> None:
    text = "Do `snakemake --cores 1 audit verdict`, then\n\n```bash\nrm -rf x  # all\n```\n```yaml\na: `make x`\n```\n"
    assert commands(text) == ["snakemake --cores 1 audit verdict", "rm -rf x  # all"]
    assert [len(rules_of(command)) for command in commands(text)] == [1, 0]
