"""The teacher: a large language model fine-tuned on the gold examples of one task, and how well it then does.

Method of Kaddour & Liu 2023, section 3 (fine-tune, then annotate or generate), with LoRA (Hu et al. 2022) in place of
full fine-tuning.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd
import torch
from safetensors.torch import load_file

from synthtune.context import Context
from synthtune.errors import SettingsError
from synthtune.files import atomic_path, digest, read_json
from synthtune.metrics import METRICS
from synthtune.models import decoding, fine_tuning, language_model, placement, scoring
from synthtune.models.fine_tuning import IGNORED, WEIGHTS
from synthtune.models.language_model import LanguageModel
from synthtune.number_format import device, device_name
from synthtune.scale import workers
from synthtune.settings import HOW, Settings, seed_for
from synthtune.settings import load as load_settings
from synthtune.tasks import Example, Task
from synthtune.tasks import load as load_task

if TYPE_CHECKING:
    from synthtune.models.endpoint import Prompted

# `annotate` is P(Y|X); `generate` is P(X,Y): the label and then the text, or the input and then the output.
Objective = Literal["annotate", "generate"]

# Settings of the teacher that do not change what it learns.
NO_MATTER = HOW | {"shots", "test_examples", "prompted_examples"}
# Those that say how many passes it takes; its fingerprint has the number that comes of them.
PASSES = {"epochs", "epochs_larger", "epochs_generate"}
SYSTEM = "fine-tuned teacher"


def prompt(task: Task, text: str) -> str:
    """The text after which the output is expected: the input's name and text, and the output's name."""
    return f"{task.template.input}: {text}\n{task.template.output}:"


def ended(task: Task, output: str) -> str:
    """An output as the teacher generates it: a set of labels ends with a full stop, so that none is the beginning of another."""
    return f"{output}." if task.separator else output


def generation_prompt(task: Task, label: str | None) -> str:
    """The text after which a whole new pair is expected; for classification it fixes the label."""
    return f"{task.template.output}: {label}\n{task.template.input}:" if label else f"{task.template.input}:"


def addressed(lm: LanguageModel, context: Context, prompts: list[str], prefix: str = "") -> tuple[str, list[str]]:
    """A prefix and prompts as the model reads them: as they stand, or as turns in its chat template (`teacher.prompts`)."""
    if context.settings.teacher.prompts != "chat":
        return prefix, prompts
    turns = [lm.turn(prefix + each) for each in prompts]
    shared = os.path.commonprefix(turns)  # which the model then reads once
    return shared, [turn.removeprefix(shared) for turn in turns]


def few_shot_prefix(task: Task, shots: list[Example]) -> str:
    """The instruction and solved examples, as put before each prompt of a model that is not fine-tuned."""
    solved = [f"{prompt(task, shot.text)} {ended(task, shot.target)}" for shot in shots]
    return "\n\n".join([task.template.instruction, *solved]) + "\n\n"


def training_text(task: Task, example: Example, objective: Objective) -> tuple[str, str]:
    """What the teacher reads and what it learns to generate after it."""
    if objective == "annotate":
        return prompt(task, example.text), f" {ended(task, example.target)}"
    if task.task_type == "classification":
        return generation_prompt(task, example.target), f" {example.text}"
    return generation_prompt(task, None), f" {example.text}\n{task.template.output}: {example.target}"


@dataclass
class Adapter:
    """What fine-tuning made of a model, on disk: a LoRA adapter, or the weights that full fine-tuning changed.

    Attributes
    ----------
    folder : Path
        peft's files or `trained.safetensors`, `settings.json` and `losses.csv`.
    digest : str
        SHA-256 of the weights.
    losses : DataFrame
        Columns epoch, step, loss: mean loss a target token, in nats, before each optimizer step.
    seconds : float
        Time to train.
    vocabulary : LongTensor or None
        The tokens that the output layer was trained with, ascending; None if all.
    """

    folder: Path
    digest: str
    losses: pd.DataFrame
    seconds: float
    vocabulary: torch.Tensor | None


def adapter_folder(context: Context, objective: Objective) -> Path:
    """Where an adapter is kept."""
    return context.folder / f"teacher-{objective}"


def fine_tune(lm: LanguageModel, context: Context, objective: Objective) -> Adapter:
    """Fine-tune the teacher on the gold examples, or take the adapter that is cached with the same fingerprint.

    Parameters
    ----------
    lm : LanguageModel
        The pretrained model; it is left as it is.
    context : Context
        `settings.teacher.processes` above 1 trains in that many processes, each with the whole model or, with
        `settings.teacher.sharding`, with its share of each layer, and in the number format that `lm` is in.
    objective : "annotate" or "generate"

    Raises
    ------
    StageError
        If a training process is killed; what one of them raises is raised as it is.
    """
    folder, fingerprint, chosen = adapter_folder(context, objective), _fingerprint(lm, context, objective), context.settings.teacher
    if cached := _cached(folder, fingerprint):
        return cached
    processes = workers.number_of(chosen.processes)
    if processes == 1 and chosen.sharding == "replicated":
        _train(lm, context, objective)
    else:
        _launch(context, objective, lm.format, processes)
    return _cached(folder, fingerprint)


def _train(lm: LanguageModel, context: Context, objective: Objective) -> None:
    settings = context.settings
    rows = [_encoded(lm, context, example, objective) for example in context.gold]
    fine_tuning.train(lm, rows, settings.teacher, settings.epochs(context.budget, objective), context.seed(objective),
                      adapter_folder(context, objective), _fingerprint(lm, context, objective), objective)


def _fingerprint(lm: LanguageModel, context: Context, objective: Objective) -> dict:
    settings = context.settings
    return {"model_digest": lm.digest, "number_format": lm.format, "data_digest": context.task.digest, "budget": context.budget,
            "direction": objective, "epochs": settings.epochs(context.budget, objective),
            "teacher": settings.teacher.model_dump(mode="json", exclude=NO_MATTER | PASSES, exclude_none=True),
            "seed": settings.seed, "threads": settings.threads, "smallest_budget": settings.budgets[0]}


def _cached(folder: Path, fingerprint: dict) -> Adapter | None:
    record = folder / "settings.json"
    if not record.exists():
        return None
    stored = read_json(record)
    weights = folder / WEIGHTS[stored["made_from"]["teacher"].get("method", "lora")]
    if stored["made_from"] != fingerprint or not weights.exists() or digest(weights) != stored["digest"]:
        return None
    vocabulary = fine_tuning.tokens(stored["vocabulary"]) if stored["vocabulary"] else None
    return Adapter(folder, stored["digest"], pd.read_csv(folder / "losses.csv"), stored["seconds"], vocabulary)


def _encoded(lm: LanguageModel, context: Context, example: Example, objective: Objective) -> tuple[list[int], torch.Tensor]:
    """Token ids of prompt and target, and the targets alone; the prompt is cut first if both are too long."""
    task, longest, chat = context.task, context.settings.teacher.max_tokens, context.settings.teacher.prompts == "chat"
    before, after = training_text(task, example, objective)
    read, learned = lm.encode(before), lm.encode(after)
    if objective == "generate" or task.task_type == "generation":
        learned.append(lm.end)
    learned = learned[:longest - 2]
    room = longest - len(learned) - (len(lm.encode(lm.turn(""))) if chat else 0)
    if len(read) > room:
        # The end of a prompt names the output that is wanted; what goes is the end of the input before it.
        ending = lm.encode(f"\n{task.template.output}:") if objective == "annotate" else []
        read = read[: max(0, room - len(ending))] + ending
    if chat:
        read = lm.encode(lm.turn(lm.tokenizer.decode(read)))
    ids = read + learned
    return ids, torch.tensor([IGNORED] * len(read) + learned)


def _launch(context: Context, objective: Objective, number_format: str, processes: int) -> None:
    """Train in several processes of this machine."""
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise SettingsError(f"teacher.processes: {processes}, but this machine has {gpus} GPUs, and each process needs one: set "
                            f"teacher.processes={gpus}, or null for as many as there are.")
    settings = context.settings.model_copy(update={"number_format": number_format})
    workers.share(partial(_train_share, objective), replace(context, settings=settings), processes, connected=True)


def with_adapter(lm: LanguageModel, adapter: Adapter, copied: bool = True) -> LanguageModel:
    """The model with what was trained in its weights: as fast as the model without it.

    Parameters
    ----------
    lm : LanguageModel
    adapter : Adapter
    copied : bool
        Leave `lm` as it is. Without a copy half the memory is needed, and `lm` is not to be used any more.
    """
    placement.offload(lm.model)  # a GPU may not hold it twice
    if adapter.vocabulary is not None:
        lm = language_model.with_vocabulary(lm, adapter.vocabulary)
    model, changed = copy.deepcopy(lm.model) if copied else lm.model, adapter.folder / WEIGHTS["full"]
    if not copied:
        # A product's last digits depend on where in memory the weights begin: where a copy's do, not as in the file they are
        # mapped from.
        for weight in model.parameters():
            weight.data = weight.data.clone()
    if changed.exists():
        model.load_state_dict(load_file(changed), strict=False)
    else:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter.folder).merge_and_unload().eval()
    return LanguageModel(model, lm.tokenizer, lm.name, adapter.digest, lm.vocabulary)


def base(settings: Settings) -> LanguageModel | None:
    """The model that is fine-tuned; None where an endpoint does all that teachers do."""
    if settings.annotate.source == settings.generate.source == "endpoint":
        return None
    return language_model.load(settings.teacher.model, settings.format)


def trained(lm: LanguageModel | None, context: Context, objective: Objective) -> Adapter | Prompted:
    """What makes the teacher that annotates or generates: an adapter, or a prompted model. Its `digest` is the teacher's.

    Parameters
    ----------
    lm : LanguageModel or None
        What `base` gives.
    context : Context
        `settings.annotate.source` and `settings.generate.source` say which it is.
    objective : "annotate" or "generate"
    """
    if getattr(context.settings, objective).source != "endpoint":
        return fine_tune(lm, context, objective)
    from synthtune.models.endpoint import Prompted  # its client library takes a second to import, and few ask

    return Prompted(context)


def ready(lm: LanguageModel | None, context: Context, objective: Objective, copied: bool = True) -> LanguageModel | Prompted:
    """The teacher that annotates or generates; see `trained` and, for `copied`, `with_adapter`."""
    made = trained(lm, context, objective)
    return with_adapter(lm, made, copied) if isinstance(made, Adapter) else made


def answers(lm: LanguageModel | Prompted, context: Context, texts: list[str], prefix: str = "",
            description: str = "answer") -> tuple[list[str], list[float], torch.Tensor | None]:
    """The model's output for each input text: the likeliest label, or the text it decodes greedily.

    A prompted model's log-probabilities are not known; see `endpoint.Prompted.answers`.

    Returns
    -------
    outputs : list of str
    log_probabilities : list of float
        Of each output given its input. For classification it is normalised over the labels.
    label_log_probabilities : Tensor of shape (texts, labels), or None for NLG
    """
    if not isinstance(lm, LanguageModel):
        return lm.answers(texts)
    task, settings = context.task, context.settings
    prefix, cut = addressed(lm, context, [_cut_prompt(lm, task, text, settings.teacher.max_tokens) for text in texts], prefix)
    if task.task_type == "classification":
        scores = scoring.score_labels(lm, cut, [ended(task, label) for label in task.labels], prefix, settings.annotate.batch_size,
                                             description).log_softmax(-1)
        best = scores.argmax(-1).tolist()
        return [task.labels[index] for index in best], scores.max(-1).values.tolist(), scores
    texts, sums, _ = decoding.decode(
        lm, cut, settings.annotate.max_new_tokens, prefix, settings.generate.batch_size, stop="\n",
        engine=settings.generate.engine, description=description)
    return texts, sums, None


def _cut_prompt(lm: LanguageModel, task: Task, text: str, longest: int) -> str:
    """The prompt of a text, the text cut so that the prompt has at most `longest` tokens."""
    whole = prompt(task, text)
    extra = len(lm.encode(whole)) - longest
    if extra <= 0:
        return whole
    kept = lm.encode(text)[:-extra]
    return prompt(task, lm.tokenizer.decode(kept))


def evaluate(lm: LanguageModel | Prompted, context: Context, system: str = SYSTEM, prefix: str = "") -> dict:
    """One row of `teacher.parquet`: how well a model does on the test set."""
    task, chosen, ours = context.task, context.settings.teacher, isinstance(lm, LanguageModel)
    most = chosen.test_examples if system == SYSTEM else chosen.prompted_examples
    examples = list(task.test[: most if ours else lm.server.max_test_examples])
    start = time.perf_counter()
    predicted, _, _ = answers(lm, context, [example.text for example in examples], prefix, f"test, {system}")
    seconds = round(time.perf_counter() - start, 2)
    return {"task": task.name, "task_type": task.task_type, "budget": context.budget, "system": system,
            "model": lm.name if ours else lm.server.model, "number_format": context.settings.format if ours else "",
            "device": device_name() if ours else "", **dict.fromkeys(METRICS, math.nan), **task.score(examples, predicted),
            "seconds": seconds, "parameters": lm.model.num_parameters() if ours else math.nan,
            "model_digest": lm.digest if ours else "", **context.digests("teacher"),
            "settings": json.dumps(context.settings_of("teacher"), sort_keys=True)}


def prompted(lm: LanguageModel, context: Context) -> list[dict]:
    """Rows for the model before fine-tuning, prompted with no and with a few gold examples (and for an endpoint).

    They do not depend on the budget beyond the examples shown, so they are measured at the smallest one only.
    """
    task, settings = context.task, context.settings
    if context.budget != settings.budgets[0]:
        return []
    from synthtune.models import endpoint  # its client library takes a second to import, and few ask

    shots = endpoint.draw_shots(context.gold, settings.teacher.shots, seed_for(settings, task.name, "shots"), task.labels)
    rows = [evaluate(lm, context, "prompted, 0-shot", few_shot_prefix(task, []))]
    if shots:
        rows.append(evaluate(lm, context, f"prompted, {len(shots)}-shot", few_shot_prefix(task, shots)))
    if server := settings.endpoint:
        rows += [evaluate(endpoint.Prompted(context, count), context, f"{server.name}, {count}-shot") for count in server.shots]
    return rows


def save(rows: list[dict], context: Context) -> pd.DataFrame:
    """Write `teacher.parquet` and return it."""
    table = pd.DataFrame(rows)
    with atomic_path(context.folder / "teacher.parquet") as temporary:
        table.to_parquet(temporary)
    return table


def _train_share(objective: Objective, context: Context, *_: int) -> None:
    """Fine-tune in one of several processes that find each other by what their environments say."""
    from accelerate import PartialState

    from synthtune.scale import sharding

    chosen = context.settings
    # Makes this process's own GPU the current one, where there are any.
    state = PartialState(cpu=device() == "cpu", timeout=sharding.PATIENCE)
    shapes_only = chosen.teacher.sharding == "sharded" and not state.is_main_process
    _train(language_model.load(chosen.teacher.model, chosen.format, shapes_only), context, objective)


def train(task: str, budget: int, objective: Objective, settings: Settings) -> None:
    """Fine-tune in each of the processes that accelerate has started; `fine_tune` then takes what they have left.

        notebook_launcher(teacher.train, ("rte", 125, "annotate", settings), num_processes=8)

    does in a notebook what `accelerate launch -m synthtune.teacher` does in a shell, of one machine or several. `fine_tune` needs
    neither: it starts the processes itself, also from a notebook that has used a GPU, which `notebook_launcher` refuses.

    Parameters
    ----------
    task : str
        Its name.
    budget, objective, settings
        As for `fine_tune`; the number of processes is the launcher's.
    """
    chosen = settings.check(task, budget)
    torch.set_num_threads(chosen.threads)
    _train_share(objective, Context(load_task(task, chosen), budget, chosen))


def main(arguments: list[str]) -> None:
    """The command line of a training process that a person starts, on each of several machines.

        accelerate launch --num_machines 2 … -m synthtune.teacher --profile paper --task rte --budget 125 --objective annotate
    """
    parser = argparse.ArgumentParser(prog="python -m synthtune.teacher", description="One of several processes that "
                                     "fine-tune a teacher together.")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE")
    parser.add_argument("--run-dir", default="", metavar="DIR", help="folder of the run, which all machines see")
    parser.add_argument("--data-root", default="", metavar="DIR")
    parser.add_argument("--task", required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--objective", choices=get_args(Objective), required=True)
    given = parser.parse_args(arguments)
    train(given.task, given.budget, given.objective, load_settings(given.profile, given.overrides, given.run_dir, given.data_root))


if __name__ == "__main__":
    main(sys.argv[1:])
