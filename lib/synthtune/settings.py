"""Every number that shapes a reproduction, in one checked object, read from one profile file.

A profile (`workflow/profiles/<name>.yaml`) fixes a whole run. Single settings are changed with strings such as
``"teacher.epochs=6"``: on the command line (`--set`), in a notebook (`overrides`), or per task inside a profile.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from synthtune import number_format
from synthtune.errors import SettingsError, nearest
from synthtune.files import digest, read_json
from synthtune.models import names as model_names
from synthtune.number_format import NumberFormat
from synthtune.places import PROFILES, ROOT, cache_folder, profiles, started_in
from synthtune.task_list import SPECS, is_own_corpus, register

# Tasks that need nothing but a package index.
TASKS = tuple(name for name, spec in SPECS.items() if not spec.public)
# Tasks that are read from their official files, below `data_root`.
PUBLIC = tuple(name for name, spec in SPECS.items() if spec.public)
# Endings of an entry of `tasks` that is a file: the task file of a custom task, or Python with `TASKS` (`task_list.register`).
TASK_FILES = (".yaml", ".yml", ".py")
# Folders of a run that are no task's.
TAKEN = ("figures", "minutes", "notebooks", "parameters", "settings")
OFFICIAL = "official"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any) -> Any:
        # pydantic would take true for 1; no setting is a truth value.
        if any(isinstance(item, bool) for item in (value if isinstance(value, list) else [value])):
            raise ValueError("must be a number, a name or a list of them")
        return value


# Settings that say how work is done and what it costs, on which no result depends.
HOW = {"processes", "sharding", "activations", "checkpoint_steps", "api_key_env", "max_concurrency", "timeout_seconds",
       "input_price", "output_price", "max_dollars"}

# Settings on which every stage of a task depends.
SHARED = ("seed", "pool_size", "test_size", "dev_size", "nlg_test_size", "max_characters", "threads", "data_root")

# What each stage depends on besides.
READS = {
    "teacher": ("teacher", "endpoint"),
    "annotate": ("teacher", "annotate"),
    "generate": ("teacher", "annotate", "generate"),
    "students": ("teacher", "annotate", "generate", "students", "budgets"),
}

SOURCE = Field(None, description="the fine-tuned teacher if null; endpoint: the prompted model of the section endpoint")

PROCESSES = Field(None, ge=1, description="processes that share the work; if null one for each GPU, or the cores that are spare")


class TeacherSettings(_Section):
    """Fine-tuning of the large language model on gold examples (`01_teacher`)."""

    model: str = Field("smollm2-135m-instruct", description="name in assets.yaml, hub id (owner/name@revision) or folder")
    frozen_layers: int = Field(15, ge=0, description="lowest transformer layers that get no LoRA; computed once")
    method: Literal["lora", "full"] = Field(
        "lora", description="train a LoRA adapter, or the layers that are not frozen (all weights if none is)")
    lora_rank: int = Field(16, ge=1, description="rank r of the LoRA update")
    lora_alpha: int = Field(32, ge=1, description="LoRA scale; the update is multiplied by alpha / rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the LoRA input")
    learning_rate: float = Field(5e-4, gt=0, description="peak learning rate of AdamW, linear warm-up and decay")
    epochs: int = Field(3, ge=1, description="passes over the gold examples at the smallest budget")
    epochs_larger: int = Field(
        2, ge=1, description="the same at larger budgets; more there if that would be fewer steps than at the smallest")
    epochs_generate: int | None = Field(
        None, ge=1, description="epochs of the P(X,Y) teacher, which with many repeats its gold examples; epochs if null")
    batch_size: int = Field(8, ge=1, description="examples per optimizer step, over all processes")
    max_tokens: int = Field(64, ge=8, description="longest sequence the teacher reads, in tokens")
    vocabulary: int | None = Field(
        None, ge=1, description="commonest tokens that the P(X,Y) teacher generates, besides those of gold; all if null")
    processes: int | None = Field(1, ge=1, description="data-parallel training processes; as many as there are GPUs if null")
    sharding: Literal["replicated", "sharded"] = Field(
        "replicated", description="every process holds the whole model, or its share of each layer (FSDP)")
    activations: Literal["kept", "checkpointed"] = Field(
        "kept", description="checkpointed ones are computed again, layer by layer, and need less memory")
    checkpoint_steps: int | None = Field(
        None, ge=1, description="optimizer steps between checkpoints that a killed training resumes from; none if null")
    prompts: Literal["plain", "chat"] | None = Field(
        None, description="as they stand, or as a user's turn in the model's chat template; plain if null")
    shots: int = Field(5, ge=0, description="gold examples in the few-shot prompt of the untuned model")
    test_examples: int = Field(500, ge=10, description="test examples the fine-tuned teacher answers")
    prompted_examples: int = Field(250, ge=10, description="test examples the same model answers before fine-tuning")


class AnnotateSettings(_Section):
    """P(Y|X) on unlabelled inputs (`02_annotate`)."""

    source: Literal["teacher", "endpoint"] | None = SOURCE
    annotator: Literal["teacher", "mixture"] | None = Field(
        None, description="classification: the teacher alone, or with students of gold, weighed by cross-validation; teacher if null")
    beside: Literal["endpoint"] | None = Field(
        None, description="who annotates the same inputs besides, for the condition gold+prompted of the study; nobody if null")
    inputs: int | None = Field(None, ge=1, description="unlabelled inputs to annotate; all if null")
    batch_size: int = Field(32, ge=1, description="inputs per forward pass")
    processes: int | None = PROCESSES
    shard_size: int = Field(512, ge=1, description="inputs per shard: what processes share, and a killed run loses at most")
    max_new_tokens: int = Field(48, ge=1, description="longest text the teacher generates (NLG)")
    outputs: Literal["all", "complete"] = Field(
        "all", description="keep every text the teacher generates, or those that mention all values of their input (NLG)")


class GenerateSettings(_Section):
    """P(X,Y): whole new pairs (`03_generate`)."""

    source: Literal["teacher", "endpoint"] | None = SOURCE
    pairs: int = Field(1000, ge=1, description="pairs to sample, before any are dropped")
    budgets: Literal["all", "ends", "smallest"] = Field(
        "all", description="budgets at which pairs are generated: all, the smallest and the largest, or the smallest alone")
    temperature: float = Field(1.0, gt=0, description="divides the logits before sampling")
    top_p: float = Field(0.95, gt=0, le=1, description="nucleus: sample among the likeliest tokens of this mass")
    batch_size: int = Field(160, ge=1, description="sequences decoded side by side")
    engine: Literal["batches", "vllm"] = Field("batches", description="one batch after another, or, on a GPU, vLLM")
    processes: int | None = PROCESSES
    shard_size: int = Field(512, ge=1, description="pairs per shard, as for annotate")
    max_new_tokens: int = Field(40, ge=4, description="longest pair, in tokens")
    labels: Literal["raw", "filtered", "relabelled"] = Field(
        "relabelled", description="keep the sampled label, keep pairs the annotating teacher agrees with, or relabel")


class StudentSettings(_Section):
    """The small models that are trained on gold plus synthetic examples (`04_students`)."""

    model: str = Field("minilm-l6-v2", description="name in assets.yaml, hub id (owner/name@revision) or folder")
    seeds: list[int] = Field([1, 2, 3], min_length=1, description="seeds at the smallest budget")
    seeds_larger: list[int] = Field([1, 2], min_length=1, description="seeds at the larger budgets and for sweeps")
    seeds_full: list[int] = Field([1, 2, 3], min_length=1, description="seeds of the ceiling, `full`")
    sweep: list[int] = Field([], description="amounts of annotated examples besides all that are kept (figure 5, NLG only)")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate of AdamW")
    head_learning_rate: float | None = Field(None, gt=0, description="the same for the new classification head; learning_rate if null")
    batch_size: int = Field(16, ge=1, description="examples per optimizer step")
    processes: int | None = PROCESSES
    steps: int = Field(150, ge=1, description="fewest optimizer steps, on however few examples")
    passes: float = Field(1.0, ge=0, description="fewest passes over all examples that a student trains on; many take more steps")
    frozen_layers: int = Field(3, ge=0, description="lowest encoder layers kept as pretrained, embeddings included")
    pooling: Literal["mean"] | None = Field(
        None, description="classification: mean over all tokens where the model's layers are BERT's; as the architecture does else, "
                          "or if null")
    max_tokens: int = Field(64, ge=8, description="longest input the student reads, in word pieces")
    class_weight: Literal["balanced"] | None = Field(
        None, description="classification: balanced weighs each class by n / (classes * n of the class) in the loss, alike if null")
    thresholds: Literal["folds"] | None = Field(
        None, description="rows of several labels: from which probability on a label is said. folds chooses the best F1 on gold rows, "
                          "each answered by a student that did not learn from it; if null, the best F1 on development examples, or, "
                          "where there are none, the likeliest set of labels that rows have is said")
    synthetic_labels: Literal["hard", "soft"] = Field(
        "soft", description="what a classifier learns of a synthetic example: its label, or the teacher's distribution over labels")
    temperature: float = Field(1.0, gt=0, description="divides the log-probabilities of soft labels; above 1 they are softer")
    values: Literal["written", "copied"] = Field(
        "written", description="NLG: values of an input are written like other words, or stand as placeholders and are put back")
    encoder_layers: int = Field(3, ge=1, description="NLG: encoder layers taken from the pretrained model")
    decoder_layers: int = Field(3, ge=1, description="NLG: decoder layers taken from the pretrained model")
    cross_attention: Literal["pretrained"] | None = Field(
        None, description="NLG: a decoder made of BERT's layers begins to attend as the highest of them do; from random weights if null")
    dropout: float | None = Field(None, ge=0, lt=1, description="NLG: dropout of such a decoder; as the model was published if null")
    max_new_tokens: int = Field(48, ge=1, description="NLG: longest text the student generates, in word pieces")


class EndpointSettings(_Section):
    """A prompted model behind an OpenAI-compatible server: for figure 4, and wherever `source` is endpoint."""

    name: str = Field(description="how figures call it")
    base_url: str = Field(description="for example http://127.0.0.1:8000/v1")
    model: str = Field(description="the server's name of the model")
    api_key_env: str | None = Field(None, description="environment variable that holds the key, if one is needed")
    shots: list[int] = Field([0, 5], description="numbers of gold examples in the prompt")
    max_concurrency: int = Field(4, ge=1, description="requests under way at once")
    timeout_seconds: float = Field(60, gt=0, description="longest wait for one answer")
    max_test_examples: int = Field(200, ge=1, description="test examples to ask about for figure 4")
    input_price: float | None = Field(None, ge=0, description="US dollars for a million tokens that the model reads")
    output_price: float | None = Field(None, ge=0, description="the same for tokens that it writes")
    max_dollars: float | None = Field(None, ge=0, description="what may be spent in a run's folder; needs both prices")


class PlanSettings(_Section):
    """What `synthtune.scale.planner` assumes of the machines; no result depends on it."""

    gpu: str = Field("cpu", description="kind of GPU, a name in scale/devices.yaml; cpu is this machine's processor")
    gpus: int | None = Field(None, ge=1, description="how many there are; as many as the largest stage needs if null")
    price: float | None = Field(None, ge=0, description="US dollars for an hour of one; cost_per_hour if null")
    memory_reserve: float = Field(0.1, ge=0, lt=1, description="share of the memory left to the driver and to gaps")
    mfu: float = Field(0.4, gt=0, le=1, description="share of the peak FLOP/s that training the teacher reaches")
    student_mfu: float = Field(0.4, gt=0, le=1, description="the same for students")
    prefill_mfu: float = Field(0.4, gt=0, le=1, description="the same for reading texts without training")
    bandwidth_share: float = Field(0.6, gt=0, le=1, description="share of the memory bandwidth that decoding reaches")


class ClusterSettings(_Section):
    """What jobs ask a SLURM cluster for (`--executor slurm`); no result depends on it."""

    partition: str | None = Field(None, description="where jobs wait; the cluster's default if null")
    account: str | None = Field(None, description="that they are charged to")
    hours_factor: float = Field(3.0, gt=0, description="hours asked for, for each that is planned")
    resources: dict[Literal["teacher", "annotate", "generate", "students", "figures"], dict[str, Any]] = Field(
        {}, description="in place of what the plan says, by stage: {teacher: {runtime: 600, mem_mb: 120000, gpu: 8}}")
    options: list[str] = Field([], description="more options of Snakemake, such as --slurm-qos=short")


class CustomDataSettings(_Section):
    """Custom data (`--task FILE`, `06_your_task`)."""

    folds: int = Field(4, ge=2, description="parts of the labelled rows, each held out once, where there is no test file")
    max_tokens: int = Field(128, ge=32, description="longest text that is read or written, in tokens; less if texts are short")
    passes: int = Field(3, ge=1, description="every student takes as many steps as these passes over the labelled rows, if not more")
    many: int = Field(5, ge=2, description="labels from which on `many_labels` holds")
    many_labels: dict[str, Any] = Field({}, description="dotted settings that differ for tasks of many labels")
    nlg: dict[str, Any] = Field({}, description="the same for text-to-text generation")
    to_label: int = Field(25, ge=1, description="unlabelled rows to propose for labelling")
    examples: int = Field(8, ge=1, description="rows of each kind that the report shows")
    export: Literal["none", "onnx"] = Field("none", description="onnx: model/ has the model in that form too, for other runtimes")


class FigureSettings(_Section):
    """Intervals and resampling (`05_figures`)."""

    resamples: int = Field(2000, ge=100, description="bootstrap resamples")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="confidence of every interval")


class Settings(_Section):
    """A whole reproduction."""

    profile: str
    seed: int = Field(17, description="every other seed is derived from this one and a name")
    tasks: list[str] = Field(list(TASKS), min_length=1, description="names of tasks, and files of custom ones (.yaml, .py)")
    task_files: dict[str, Path] = Field({}, description="the file of each custom task, by the task's name; taken from tasks")
    budgets: list[int] = Field([125, 250], min_length=1, description="labelled examples, ascending")
    pool_size: int = Field(2500, ge=20, description="training examples a task may have")
    test_size: int = Field(500, ge=20, description="test examples of a classification task")
    dev_size: int = Field(300, ge=0, description="development examples, neither gold nor test")
    nlg_test_size: int = Field(300, ge=10, description="test inputs of an NLG task")
    max_characters: int = Field(300, ge=40, description="texts are cut at the last word before this length")
    data_root: Path | None = Field(
        None, description="folder with real webnlg/ and sgd/ corpora in place of the toy ones, and with public ones: rte/ …; "
                          "official: they are fetched from where they are published")
    number_format: NumberFormat | Literal["auto"] = Field(
        "auto", description="of matrix products: float32, bfloat16, or what the processor or GPU has instructions for")
    jobs: int | None = Field(None, ge=1, description="notebooks run side by side; as many as cores and memory allow if null")
    threads: int = Field(1, ge=1, description="threads of each notebook; part of what makes numbers repeat")
    teacher: TeacherSettings = TeacherSettings()
    annotate: AnnotateSettings = AnnotateSettings()
    generate: GenerateSettings = GenerateSettings()
    students: StudentSettings = StudentSettings()
    endpoint: EndpointSettings | None = None
    custom: CustomDataSettings = CustomDataSettings()
    custom_task: str | None = Field(None, description="name of a task of custom data; set by what reads it")
    figures: FigureSettings = FigureSettings()
    plan: PlanSettings = PlanSettings()
    cluster: ClusterSettings = ClusterSettings()
    cost_per_label: float = Field(0.10, ge=0, description="US dollars to have one example labelled by a person")
    cost_per_hour: float = Field(0.10, ge=0, description="US dollars for an hour of this machine")
    per_task: dict[str, dict[str, Any]] = Field({}, description="dotted settings that differ for a task")
    run_dir: Path | None = Field(None, description="where results go; runs/<profile> if not given")

    @field_validator("budgets")
    @classmethod
    def _ascending(cls, budgets: list[int]) -> list[int]:
        if sorted(set(budgets)) != budgets or budgets[0] < 1:
            raise ValueError("must be positive numbers, each larger than the one before")
        return budgets

    @field_validator("data_root", mode="before")
    @classmethod
    def _official(cls, folder: Any) -> Any:
        return official_corpora() if folder == OFFICIAL else folder

    def model_post_init(self, _context: Any) -> None:
        for path in set(filter(_is_python, self.task_files.values())):  # other processes are given settings alone
            register(path)
        for problem in _contradictions(self):
            raise SettingsError(problem)

    @property
    def folder(self) -> Path:
        """The folder of this run."""
        return (self.run_dir or ROOT / "runs" / self.profile).resolve()

    def without_corpus(self) -> list[str]:
        """Tasks of which `data_root`, where it is a user's folder, has no corpus."""
        if not self.data_root or self.data_root == official_corpora():
            return []
        return [task for task in self.tasks if (task in PUBLIC or is_own_corpus(task, None)) and not (self.data_root / task).is_dir()]

    def models(self) -> list[str]:
        """Names of the models that the tasks of this run use."""
        each = [self.for_task(task) for task in self.tasks]
        return list(dict.fromkeys(model for mine in each for model in (mine.teacher.model, mine.students.model)))

    def named_models(self) -> dict[str, str]:
        """What the settings say of models, by the dotted names of the settings that do."""
        found = {"teacher.model": self.teacher.model, "students.model": self.students.model}
        return found | {f"per_task.{task}.{key}": changes[key] for task, changes in self.per_task.items()
                        for key in ("teacher.model", "students.model") if key in changes}

    def hub_models(self) -> list[str]:
        """Those of them that come from the Hugging Face hub."""
        return list(filter(model_names.from_hub, self.models()))

    def hub_datasets(self) -> list[str]:
        """The custom tasks whose rows come from there."""
        from synthtune.custom import task_file

        return [name for name, path in self.task_files.items() if not _is_python(path) and task_file.load(path).hub]

    @property
    def format(self) -> NumberFormat:
        """The number format: the setting, or for "auto" the one that this run began with, or else this machine's.

        A run that goes on elsewhere keeps its format, so that its numbers can be compared.
        """
        if self.number_format != "auto":
            return self.number_format
        record = self.folder / "settings.json"
        began = read_json(record).get("number_format", "auto") if record.exists() else "auto"
        return number_format.of_machine() if began == "auto" else began

    @property
    def planned_format(self) -> NumberFormat:
        """The same for a plan, whose GPU need not be this machine's: all in `planner.DEVICES` compute in bfloat16."""
        return "bfloat16" if self.number_format == "auto" and self.plan.gpu != "cpu" else self.format

    def resolved(self) -> Settings:
        """The same settings with the number format decided: what other processes are given."""
        return self.model_copy(update={"number_format": self.format})

    def epochs(self, budget: int, objective: Literal["annotate", "generate"]) -> int:
        """The passes over the gold examples of a budget by the teacher that annotates or the one that generates."""
        smallest, chosen = self.budgets[0], self.teacher
        epochs = chosen.epochs_generate if objective == "generate" and chosen.epochs_generate else chosen.epochs
        return epochs if budget == smallest else max(chosen.epochs_larger, math.ceil(epochs * smallest / budget))

    def objectives(self, budget: int) -> list[Literal["annotate", "generate"]]:
        """What teachers are fine-tuned to do at a budget: to annotate, and, where pairs are generated, to generate."""
        at = {"all": self.budgets, "ends": [self.budgets[0], self.budgets[-1]], "smallest": self.budgets[:1]}
        return ["annotate", "generate"] if budget in at[self.generate.budgets] or budget not in self.budgets else ["annotate"]

    def budgets_of(self, objective: str) -> list[int]:
        """Budgets at which a teacher is fine-tuned for an objective."""
        return [budget for budget in self.budgets if objective in self.objectives(budget)]

    def steps(self, rows: int) -> int:
        """A student's optimizer steps on so many training examples."""
        return max(self.students.steps, math.ceil(self.students.passes * rows / self.students.batch_size))

    def for_task(self, task: str) -> Settings:
        """The settings as they are for one task: `per_task` entries put in their places."""
        changes = self.per_task.get(task, {})
        if not changes:
            return self
        return _build(_changed(self.model_dump(mode="python"), changes, where=f"per_task.{task}"))

    def for_stage(self, stage: str, task: str | None = None) -> dict[str, Any]:
        """What the result of a stage depends on, as plain JSON: the stage's own settings and its inputs'.

        Parameters
        ----------
        stage : str
            "teacher", "annotate", "generate", "students" or "figures".
        task : str, optional
            The task; needed for every stage but "figures".
        """
        if stage != "figures":
            return _depends_on(self.for_task(task), stage, task)
        without = ("run_dir", "jobs", "number_format", "plan", "cluster", "custom", "custom_task", "task_files")
        return {"figures": self.model_dump(mode="json", exclude_none=True, exclude={**dict.fromkeys(without, True), "endpoint": HOW})}

    def stage_digest(self, stage: str, task: str, budget: int) -> str:
        """SHA-256 of what a stage's result depends on."""
        return digest({"stage": stage, "budget": budget, "settings": self.for_stage(stage, task)})

    def check(self, task: str, budget: int | None = None) -> Settings:
        """Refuse a task or budget this profile cannot run; return the settings as they are for that task, `resolved`.

        Parameters
        ----------
        task : str
            A name, or the task file of a custom task, which the settings that are returned then know.
        budget : int, optional

        Raises
        ------
        SettingsError
            Naming the parameter and the values that would do.
        """
        if is_task_file(task):
            every = _build(_with_task_files({**self.model_dump(), "tasks": [*self.tasks, task]}))
            return every.check(every.tasks[-1], budget)
        known = {*SPECS, *self.task_files}
        if not isinstance(task, str) or task not in {*known, self.custom_task}:
            raise SettingsError(f"task: unknown task {task!r}; {nearest(str(task), known)}")
        if task in PUBLIC and not self.data_root:
            raise SettingsError(f"data_root: {task} is read from its official files; give the folder that has them in {task}/ "
                                f"(--data-root DIR), or have them fetched (--data-root {OFFICIAL}).")
        if budget is not None:
            if isinstance(budget, bool) or not isinstance(budget, int):
                raise SettingsError(f"budget: {budget!r} is not a whole number; give one such as {self.budgets[0]}.")
            if not 1 <= budget <= self.pool_size:
                raise SettingsError(f"budget: {budget} labelled examples, but the pool of {task} has at most "
                                    f"{self.pool_size}; choose a number from 1 to {self.pool_size}.")
        return self.for_task(task).resolved()


def _contradictions(settings: Settings) -> Iterator[str]:
    """What is wrong with settings that are right one by one."""
    endpoint, known = settings.endpoint, {*SPECS, *settings.task_files}
    for setting, named in (("tasks", settings.tasks), ("per_task", settings.per_task)):
        for task in named:
            if task not in known:
                yield f"{setting}: unknown task '{task}'; {nearest(task, known)}"
    if settings.budgets[-1] > settings.pool_size:
        yield (f"budgets: {settings.budgets[-1]} labelled examples are more than the pool of {settings.pool_size}; lower the budget or "
               "raise pool_size.")
    for task, changes in settings.per_task.items():
        if "budgets" in changes:
            yield (f"per_task.{task}: budgets are the same for all tasks of a run; a task that has a few examples less than the "
                   "largest uses all it has. Set budgets outside per_task.")
    for name, chosen in (("annotate.source", settings.annotate.source), ("generate.source", settings.generate.source),
                         ("annotate.beside", settings.annotate.beside)):
        if chosen == "endpoint" and endpoint is None:
            yield f"{name}: endpoint, but no endpoint is named; set endpoint.name, endpoint.base_url and endpoint.model."
    if endpoint and endpoint.max_dollars is not None and None in (endpoint.input_price, endpoint.output_price):
        yield ("endpoint.max_dollars: what a token costs is not known; set endpoint.input_price and endpoint.output_price, in US "
               "dollars for a million tokens.")
    if settings.generate.engine != "batches" and settings.teacher.vocabulary is not None:
        yield (f"generate.engine: {settings.generate.engine} generates with all of the teacher's tokens; set teacher.vocabulary=null, or "
               "generate.engine=batches.")


def _depends_on(settings: Settings, stage: str, task: str | None) -> dict[str, Any]:
    """What a stage of a task depends on; see `Settings.for_stage`. The settings are those of the task."""
    # A setting that is null says nothing: one that a later version adds, null at first, voids no results.
    mine = settings.model_dump(mode="json", exclude_none=True)
    sections = list(READS[stage])
    if mine["annotate"].get("annotator") == "mixture" and stage in ("annotate", "generate"):
        sections.append("students")
    if stage == "generate":
        mine["annotate"].pop("beside", None)
    if any("endpoint" in (mine[name].get("source"), mine[name].get("beside")) for name in ("annotate", "generate") if name in sections):
        sections.append("endpoint")
    # The other budgets a run compares do not change what one budget's teacher is; the smallest decides how the
    # pool is ordered and which number of epochs a budget gets.
    found = {"task": task, "smallest_budget": mine["budgets"][0], "number_format": settings.format}
    for name in (*SHARED, *sections):
        if name in mine:
            chosen = mine[name]
            found[name] = {key: each for key, each in chosen.items() if key not in HOW} if isinstance(chosen, dict) else chosen
    if task is not None and task == settings.custom_task:
        # Custom data's pool is as large as the rows are many, and the annotated inputs have a digest of their own: more unlabelled
        # rows, or more of them annotated, change no pair that is generated.
        del found["pool_size"]
        found.get("annotate", {}).pop("inputs", None)
    return found


def seed_for(settings: Settings, *parts: object) -> int:
    """A seed that depends on the run's seed and on a name, the same in every process and on every machine."""
    return (settings.seed * 1_000_003 + zlib.crc32("/".join(map(str, parts)).encode())) % 2**31


def is_task_file(task: Any) -> bool:
    """Whether a task is given by its file."""
    return isinstance(task, str) and task.endswith(TASK_FILES)


def _is_python(path: Path) -> bool:
    return path.suffix == ".py"


def _with_task_files(values: dict[str, Any]) -> dict[str, Any]:
    """A profile whose tasks are all named, with the file of each custom one, and its settings for the custom ones that write text.

    A relative path starts where the command was typed or, if there is no such file, in the profiles' folder.
    """
    entries = values.get("tasks")
    if not isinstance(entries, list) or not (any(map(is_task_file, entries)) or values.get("task_files")):
        return values
    files = {name: Path(path) for name, path in (values.get("task_files") or {}).items()}
    tasks, changes = [], dict(values.get("per_task") or {})
    for entry in entries:
        if not is_task_file(entry):
            tasks.append(entry)
            continue
        given = Path(entry).expanduser()
        found = [folder / given for folder in (started_in(), PROFILES)]
        path = next((path for path in found if path.is_file()), found[0]).resolve()
        named = register(path) if _is_python(path) else [re.sub("[^a-z0-9]+", "_", path.stem.lower()).strip("_")]
        taken = TAKEN if _is_python(path) else (*SPECS, *TAKEN)
        for name in named:
            if not name or name in taken or files.setdefault(name, path) != path:
                raise SettingsError(f"tasks: {entry}: another task, or a folder of the results, is called '{name}'; rename the file.")
        tasks += named
    for name, path in files.items():
        if _generates_text(name, path):
            of_type = (values.get("custom") or {}).get("nlg") or {}
            changes[name] = {**of_type, **changes.get(name, {})}
    return {**values, "tasks": tasks, "task_files": files, "per_task": changes}


def _generates_text(name: str, path: Path) -> bool:
    """Whether the task of a file is text generation; a file that does not say so, or cannot be used, is refused."""
    if _is_python(path):
        register(path)
        return SPECS[name].task_type == "generation"
    from synthtune.custom import task_file  # its package reads settings

    chosen = task_file.load(path)
    if not (chosen.label or chosen.target):
        raise SettingsError(f"{path.name}: a task of the study says which column is to be predicted; add 'label: COLUMN', or "
                            "'target: COLUMN' for texts to be written.")
    return bool(chosen.target)


def official_corpora() -> Path:
    """Folder of the cache that public corpora are fetched into: what `data_root: official` stands for."""
    return cache_folder() / "corpora"


def load(profile: str = "laptop", overrides: list[str] | dict[str, Any] | None = None,
         run_dir: str | Path | None = None, data_root: str | Path | None = None) -> Settings:
    """Read a profile and apply changes to it.

    Models that are folders are named by their whole paths. Of a hub model without a commit the commit of its branch is looked up,
    once: a run that goes on keeps the one it began with, in its `models.json`.

    Parameters
    ----------
    profile : str
        Name of a file in workflow/profiles, without ".yaml".
    overrides : list of str or dict, optional
        Changes such as ``["teacher.epochs=6"]`` or ``{"teacher.epochs": 6}``; the right side is read as YAML.
    run_dir, data_root : path, optional
        Set the settings of those names; an empty string counts as not given, so notebooks can pass them on.

    Raises
    ------
    SettingsError
        Unknown profile or setting (with the nearest valid name), or a value of the wrong type.
    AssetError
        The hub has no such model, or cannot be reached.
    """
    settings = read(profile, overrides, run_dir, data_root)
    named = settings.named_models()
    now = {name: model_names.settled(name, settings.folder / "models.json") for name in named.values()}
    changed = {setting: now[name] for setting, name in named.items() if now[name] != name}
    return _build(_changed(settings.model_dump(mode="python"), changed, where="models")) if changed else settings


def read(profile: str = "laptop", overrides: list[str] | dict[str, Any] | None = None,
         run_dir: str | Path | None = None, data_root: str | Path | None = None) -> Settings:
    """The same with models as they are named: nothing is looked up."""
    if not isinstance(profile, str) or profile not in profiles():
        raise SettingsError(f"profile: unknown profile {profile!r}; {nearest(str(profile), profiles())}")
    path = PROFILES / f"{profile}.yaml"
    try:
        values = yaml.safe_load(path.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    values["profile"] = profile
    values = _changed(values, _parsed(overrides), where="overrides")
    for name, value in (("run_dir", run_dir), ("data_root", data_root)):
        if value:
            values[name] = Path(value).expanduser().resolve()
    settings = _build(_with_task_files(values))
    for task in settings.per_task:
        settings.for_task(task)
    return settings


def for_custom_data(profile: str, task_type: str, labels: int, measured: dict[str, Any], overrides: list[str] | dict[str, Any] | None,
                    run_dir: str | Path) -> Settings:
    """A profile as it is for custom data.

    Parameters
    ----------
    profile : str
    task_type : str
        "classification" or "generation".
    labels : int
        How many there are.
    measured : dict
        Dotted settings that follow from the rows themselves, such as how long their texts are.
    overrides : list of str or dict, optional
        As for `load`; they win over everything else.
    run_dir : path
    """
    asked = _parsed(overrides)
    chosen = read(profile, asked).custom
    of_type = chosen.nlg if task_type == "generation" else chosen.many_labels if labels >= chosen.many else {}
    return load(profile, {**of_type, **measured, **asked}, run_dir)


def _parsed(overrides: list[str] | dict[str, Any] | None) -> dict[str, Any]:
    if overrides is None or isinstance(overrides, dict):
        return overrides or {}
    if isinstance(overrides, str):
        overrides = [overrides] if overrides else []
    if not isinstance(overrides, (list, tuple)):
        raise SettingsError(f"overrides: {overrides!r} is not a list of strings such as ['teacher.epochs=6'].")
    changes = {}
    for item in overrides:
        key, found, value = str(item).partition("=")
        if not found:
            raise SettingsError(f"overrides: '{item}' has no '='; write a setting as teacher.epochs=6.")
        try:
            changes[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SettingsError(f"{key.strip()}: '{value}' is not a value that YAML can read.") from error
    return changes


def names() -> list[str]:
    """Every setting by its dotted name."""
    found = []
    for name, field in Settings.model_fields.items():
        section = next((a for a in (field.annotation, *get_args(field.annotation))
                        if isinstance(a, type) and issubclass(a, _Section)), None)
        found += [f"{name}.{inner}" for inner in section.model_fields] if section else [name]
    return found


def _changed(values: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
    values = deepcopy(values)
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        if first == "per_task" and rest:
            task, _, setting = rest.partition(".")
            values.setdefault("per_task", {}).setdefault(task, {})[setting] = value
            continue
        if key != "endpoint":
            _refuse_unknown(where, [key])
        values[first] = {**(values.get(first) or {}), rest: value} if rest else value
    return values


def _refuse_unknown(where: str, keys: Iterable[str]) -> None:
    for key in set(keys).difference(names()):
        raise SettingsError(f"{where}: unknown setting '{key}'; {_nearest_setting(key)}")


def _nearest_setting(key: str) -> str:
    hint = nearest(key, names()).partition("Valid:")[0]
    return hint + "lib/synthtune/settings.py describes every one."


def _build(values: dict[str, Any]) -> Settings:
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            place = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                problems.append(f"unknown setting '{place}'; {_nearest_setting(place)}")
            else:
                problems.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}, not {problem['input']!r}")
        raise SettingsError(f"Profile '{values.get('profile')}': " + "; ".join(problems)) from error
    for task, changes in settings.per_task.items():
        _refuse_unknown(f"per_task.{task}", changes)
    _refuse_unknown("custom.many_labels", settings.custom.many_labels)
    _refuse_unknown("custom.nlg", settings.custom.nlg)
    return settings
