"""What a profile would take, before anything is downloaded: memory, GPUs, hours, disk and money, stage by stage.

`synthtune.scale.model_cost` has the formulae of FLOPs and of memory, and their sources. Texts are not read, but for those of custom
tasks: each task's file states how long they are on average, which is good for sums of tokens; memory is that of the longest
texts the settings allow.

Students are trained under autocast: weights, gradients and moments are float32, most activations of `number_format`. The hidden
states that frozen layers give wait in the machine's memory, not on the GPU.

A teacher that is not trained takes its weights and its cache, over the GPUs of a job, what one layer would keep for the
texts it reads, and (e + 8)·V bytes for each token it predicts.

Time. Training and reading texts take FLOPs / (N · peak · share of the peak). The share is that of all FLOPs carried
out, PaLM's hardware utilisation, equal to its MFU where nothing is checkpointed. Training on several GPUs takes no
less than gathering the weights twice a step over the link. Writing a token takes the longer of its FLOPs and of reading
all weights and the cache from memory (Williams et al. 2009, the roofline). Each notebook reads the weights from disk
once, and so does each student. Padding is not counted. The jobs of a stage (its budgets, its cells) that fit on fewer GPUs than there are run side
by side, tasks one after the other; GPUs that stand idle meanwhile are not paid for.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import pandas as pd
import psutil

from synthtune import tasks
from synthtune.conditions import FULL, GOLD
from synthtune.errors import SettingsError, nearest
from synthtune.experiment import cells_given
from synthtune.files import atomic_path, write_json
from synthtune.models import assets
from synthtune.number_format import BYTES
from synthtune.scale.model_cost import (
    LOGITS_AT_ONCE,
    Memory,
    activation_bytes,
    gathered,
    is_seq2seq,
    model_of,
    trained_memory,
    training_flops,
)
from synthtune.settings import PlanSettings, Settings

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """A kind of GPU.

    Attributes
    ----------
    name : str
    memory : float
        GiB.
    tflops : float
        Peak of its tensor cores in bfloat16 without sparsity, 10¹² FLOP/s.
    bandwidth : float
        Of its memory, 10⁹ bytes/s.
    link : float
        To the other GPUs of a machine, in one direction (half of what data sheets give), 10⁹ bytes/s.
    """

    name: str
    memory: float
    tflops: float
    bandwidth: float
    link: float


# NVIDIA's data sheets of each product (B200: an eighth of the DGX B200); the RTX 4090's is the Ada GPU architecture
# white paper. Figures given "with sparsity" are halved.
DEVICES = {
    device.name: device
    for device in (
        Device("B200 180GB", 180, 2250, 8000, 900),
        Device("H200 141GB", 141, 989, 4800, 450),
        Device("H100 80GB", 80, 989, 3350, 450),
        Device("A100 80GB", 80, 312, 2039, 300),
        Device("A100 40GB", 40, 312, 1555, 300),
        Device("L40S 48GB", 48, 362, 864, 32),
        Device("L4 24GB", 24, 121, 300, 32),
        Device("A10 24GB", 24, 125, 600, 32),
        Device("RTX 4090 24GB", 24, 165, 1008, 32),
    )
}


@dataclass(frozen=True)
class Texts:
    """How long a task's texts are on average, in tokens (an assumption), and the number of labels, 0 for text generation."""

    input: int
    output: int
    labels: int = 0

    @classmethod
    def of(cls, task: str, settings: Settings) -> Texts:
        """Those of a task of the study; of a custom task they are counted."""
        spec = tasks.spec_of(task, settings)
        return cls(**spec.tokens, labels=spec.labels)


CPU_TFLOPS = {"float32": 0.2, "bfloat16": 0.8}
"""Peak 10¹² FLOP/s of two cores with which the laptop profile takes the hours that it took (AVX2; AMX), by number format."""

WORDING_TOKENS = 8
"""What a prompt adds to an input: the names of input and output."""

COUNTS = tuple(2**power for power in range(11))
"""Numbers of GPUs one job may be spread over."""


ANSWERING = ("evaluate", "annotate", "generate")
"""Stages in which a teacher is not trained: its layers are then laid out over the GPUs of a job, see `synthtune.models.placement`."""


@dataclass(frozen=True)
class Shape:
    """How a job is run: what can be changed when it does not fit.

    Attributes
    ----------
    gpus : int
        That share the job.
    batch : float
        Texts in a pass, on each GPU in training and on all of them otherwise.
    length : float
        Tokens of the longest text.
    activations, method : str
        As in `PlanSettings`.
    """

    gpus: int
    batch: float
    length: float
    activations: str = "kept"
    method: str = "full"


@dataclass
class Row:
    """One stage of one task, at all budgets.

    Attributes
    ----------
    task, stage, model : str
    jobs : int
        Notebooks' parts that may run side by side: teachers to train, stages to run, student cells.
    parameters, trained : float
        Of the model.
    shape : Shape
        As the settings have it, on one GPU.
    memory : callable
        Shape → `Memory`.
    batch_setting, length_setting : str
        Settings that change the shape's batch and length.
    divided : bool
        Whether the batch is divided over the GPUs of the job.
    tokens, flops : float
        Read and written, over all jobs.
    seconds : callable
        Number of GPUs of a job → seconds of all jobs, one after the other.
    disk : float
        Bytes written.
    """

    task: str
    stage: str
    model: str
    jobs: int
    parameters: float
    trained: float
    shape: Shape
    memory: Callable[[Shape], Memory]
    batch_setting: str
    length_setting: str
    divided: bool = False
    tokens: float = 0
    flops: float = 0
    seconds: Callable[[int], float] = field(default=lambda gpus: 0.0)
    disk: float = 0

    @property
    def tunes(self) -> bool:
        """Whether the teacher is trained."""
        return self.batch_setting == "plan.micro_batch"

    def at(self, gpus: int) -> Shape:
        """The shape on so many GPUs."""
        batch = math.ceil(self.shape.batch / gpus) if self.divided else self.shape.batch
        return replace(self.shape, gpus=gpus, batch=batch)


def smallest_gpus(row: Row, limit: float) -> int | None:
    """Fewest GPUs that hold a row's job, in powers of two; None if 1,024 do not.

    Parameters
    ----------
    row : Row
    limit : float
        Bytes a GPU may be filled with.
    """
    return next((count for count in COUNTS if row.memory(row.at(count)).total <= limit), None)


def largest(row: Row, shape: Shape, name: str, limit: float) -> int:
    """Largest batch or length (`name`) with which a job fits; below 1 if none does. Memory grows in a line with both."""
    base, step = (row.memory(replace(shape, **{name: value})).total for value in (0, 1))
    return math.floor((limit - base) / (step - base))


def remedies(row: Row, gpus: int, plan: PlanSettings, limit: float) -> list[str]:
    """Settings each of which makes a job fit that does not fit on `gpus` GPUs; if none does alone, all at once."""
    shape, found = row.at(gpus), []
    fewest = smallest_gpus(row, limit)
    if fewest and plan.gpu != "cpu":
        found.append(f"plan.gpus={fewest}")
    for name, setting in (("batch", row.batch_setting), ("length", row.length_setting)):
        most = largest(row, shape, name, limit)
        if most >= (1 if name == "batch" else 16):
            found.append(f"{setting}={most}")
    if row.tunes:
        options = {}
        if shape.activations == "kept":
            options["teacher.activations=checkpointed"] = {"activations": "checkpointed"}
        if shape.method == "full":
            options["teacher.method=lora"] = {"method": "lora"}
        for said, change in options.items():
            if row.memory(replace(shape, **change)).total <= limit:
                found.append(said)
        if not found and options:
            together = replace(
                shape, **{name: value for change in options.values() for name, value in change.items()}
            )
            most = largest(row, together, "batch", limit)
            if most >= 1:
                found.append(" with ".join([*options, f"plan.micro_batch={most}"]))
    return found


def device(settings: Settings) -> Device:
    """The kind of GPU that the settings name, or this machine.

    Raises
    ------
    SettingsError
        With the nearest names, if there is none of that name.
    """
    plan = settings.plan
    if plan.gpu == "cpu":
        memory = psutil.virtual_memory().total / GIB
        return Device("cpu", memory, plan.cpu_tflops or CPU_TFLOPS[settings.planned_format], plan.cpu_bandwidth, plan.cpu_bandwidth)
    if plan.gpu not in DEVICES:
        raise SettingsError(f"plan.gpu: unknown GPU '{plan.gpu}'; {nearest(plan.gpu, [*DEVICES, 'cpu'])}")
    return DEVICES[plan.gpu]


class _Stages:
    """The rows of one task."""

    def __init__(self, task: str, settings: Settings, machine: Device) -> None:
        self.task, self.texts, self.machine = task, Texts.of(task, settings), machine
        self.settings = settings.for_task(task)
        self.plan = self.settings.plan
        self.size = BYTES[self.settings.planned_format]
        self.kind = "classification" if self.texts.labels else "nlg"
        self.teacher = model_of(self.settings.teacher.model, "teacher")
        self.test = self.settings.test_size if self.texts.labels else self.settings.nlg_test_size

    def rows(self) -> list[Row]:
        """Every stage of the task."""
        return [
            *(self.fine_tune(direction) for direction in ("annotate", "generate")),
            self.answer("evaluate", self.evaluated()),
            self.answer("annotate", [(number, 0) for number in self.annotated().values()]),
            self.generate(),
            self.students(),
        ]

    def annotated(self) -> dict[int, int]:
        """Inputs annotated at each budget."""
        return {
            budget: min(self.settings.annotate.inputs or self.settings.pool_size, self.settings.pool_size - budget)
            for budget in self.settings.budgets
        }

    def evaluated(self) -> list[tuple[int, int]]:
        """Test inputs and the tokens of examples in front of each: tuned at every budget, prompted at the smallest."""
        chosen = self.settings.teacher
        prompted = min(self.test, chosen.prompted_examples)
        shot = WORDING_TOKENS + self.texts.input + self.texts.output
        tuned = [(min(self.test, chosen.test_examples), 0)] * len(self.settings.budgets)
        return [*tuned, (prompted, 0), (prompted, chosen.shots * shot)]

    def fine_tune(self, direction: str) -> Row:
        """LoRA or full fine-tuning at every budget."""
        chosen, model, plan = self.settings.teacher, self.teacher, self.plan
        stack = model.decoder
        layers = stack.layers - min(chosen.frozen_layers, stack.layers - 1)
        lora = chosen.method == "lora"
        rank = chosen.lora_rank

        def sizes(method: str) -> tuple[float, float, int]:
            """Frozen parameters, trained ones and their tensors."""
            if method == "full":
                return 0, model.parameters, model.tensors
            return model.parameters, layers * stack.adapter(rank), layers * stack.maps * 2

        length = min(chosen.max_tokens, WORDING_TOKENS + self.texts.input + self.texts.output)
        labelling = direction == "annotate" and self.texts.labels > 0
        known = self.generator_vocabulary if direction == "generate" else model.vocabulary
        learned = self.texts.output + (0 if self.texts.labels else 1)
        if direction == "generate":
            learned = min(length, self.texts.input + 1 + (0 if self.texts.labels else self.texts.output))

        def memory(shape: Shape) -> Memory:
            full = shape.method == "full"
            tokens = shape.batch * shape.length
            # The longest text may be all output, unless the output is a label.
            predicted = shape.batch * (learned if labelling else shape.length)
            base = trained_memory(*sizes(shape.method), self.size, shape.gpus)
            logits = 12 * known * predicted
            if shape.activations == "checkpointed":
                logits = 12 * known * LOGITS_AT_ONCE + self.size * stack.hidden * predicted
            return replace(
                base,
                activations=activation_bytes(
                    stack,
                    layers,
                    tokens,
                    self.size,
                    0 if full else rank,
                    model.norms,
                    shape.activations == "checkpointed",
                ),
                logits=logits,
                gathered=gathered(model, self.size, shape.gpus),
            )

        below, above = replace(stack, layers=stack.layers - layers), replace(stack, layers=layers)
        per_text, once = (part.forward(length, length) for part in (above, below))
        attention = layers * stack.attention(length, length)
        head = 2 * model.head * known / model.vocabulary * learned
        adapters = 2 * layers * stack.adapter(rank) * length if lora else 0
        again = 0.0
        if chosen.activations == "checkpointed":
            again = head + (per_text + adapters if lora else per_text - 2 * layers * stack.last * length)
        pass_flops = training_flops(per_text, attention, head, adapters, lora) + again
        epochs = {budget: self.settings.epochs(budget) for budget in self.settings.budgets_of(direction)}
        passes = sum(budget * epochs[budget] for budget in epochs)
        steps = sum(math.ceil(budget / chosen.batch_size) * epochs[budget] for budget in epochs)
        flops = passes * pass_flops + sum(epochs) * once
        frozen, trained, _ = sizes(chosen.method)
        weights = frozen * self.size + trained * 4

        def seconds(gpus: int) -> float:
            computing = flops / (gpus * self.machine.tflops * 1e12 * plan.mfu)
            sent = steps * (2 * (frozen + trained) * self.size + 4 * trained) * (gpus - 1) / gpus
            # Both directions are trained in one notebook, which reads the weights once.
            reading = len(epochs) * model.parameters * self.size / (plan.read_rate * 1e9) / 2
            return max(computing, sent / (self.machine.link * 1e9)) + reading

        batch = plan.micro_batch or chosen.batch_size
        return Row(
            task=self.task,
            stage=f"fine-tune, {direction}",
            model=chosen.model,
            jobs=len(epochs),
            parameters=frozen + trained,
            trained=trained,
            shape=Shape(1, batch, chosen.max_tokens, chosen.activations, chosen.method),
            memory=memory,
            batch_setting="plan.micro_batch",
            length_setting="teacher.max_tokens",
            divided=plan.micro_batch is None,
            tokens=passes * length,
            flops=flops,
            seconds=seconds,
            disk=len(epochs) * (trained * 4 if lora else weights),
        )

    def answer(self, stage: str, groups: list[tuple[int, int]]) -> Row:
        """Labels scored or outputs written for groups of (inputs, tokens in front of each)."""
        chosen = self.settings.annotate
        tokens, flops, spent = self.answering(groups)
        jobs = len(self.settings.budgets)
        tail = self.texts.labels * (self.texts.output - 1)
        new = 0 if self.texts.labels else chosen.max_new_tokens
        batch = chosen.batch_size if self.texts.labels else self.settings.generate.batch_size
        more = new + tail + max(prefix for _, prefix in groups)
        row = self.inference(stage, batch, self.settings.teacher.max_tokens, more, tail + 1)
        rows = sum(number for number, _ in groups)
        kept = rows * (4.5 * (self.texts.input + self.texts.output) + 8 * (self.texts.labels + 2))
        row.batch_setting = "annotate.batch_size" if self.texts.labels else "generate.batch_size"
        row.jobs, row.tokens, row.flops = jobs, tokens, flops
        row.disk = kept if stage == "annotate" else 8 * rows
        # Testing follows in the notebook that trained.
        row.seconds = self.timed(spent, 0 if stage == "evaluate" else jobs)
        return row

    @property
    def generator_vocabulary(self) -> int:
        """Tokens that the P(X,Y) teacher writes, but for the few of gold that are not among the commonest."""
        return min(self.settings.teacher.vocabulary or self.teacher.vocabulary, self.teacher.vocabulary)

    def generate(self) -> Row:
        """New pairs, and the annotator's label for each."""
        chosen, stack, model = self.settings.generate, self.teacher.decoder, self.teacher
        jobs = len(self.settings.budgets_of("generate"))
        pairs = jobs * chosen.pairs
        new = min(
            chosen.max_new_tokens, self.texts.input + (0 if self.texts.labels else self.texts.output) + 1
        )
        read = stack.forward(pairs * WORDING_TOKENS, WORDING_TOKENS)
        head = 2 * model.head * self.generator_vocabulary / model.vocabulary
        wrote = stack.forward(pairs * new, WORDING_TOKENS + new / 2) + head * pairs * new
        spent = self.writing(pairs, new, WORDING_TOKENS + new / 2, read, wrote, chosen.batch_size)
        more_tokens, more_flops, more = self.answering([(chosen.pairs, 0)] * jobs)
        row = self.inference(
            "generate", chosen.batch_size, chosen.max_new_tokens, WORDING_TOKENS, 1, WORDING_TOKENS
        )
        row.batch_setting, row.length_setting = "generate.batch_size", "generate.max_new_tokens"
        row.jobs, row.tokens = jobs, pairs * (WORDING_TOKENS + new) + more_tokens
        row.flops, row.seconds = read + wrote + more_flops, self.timed([*spent, *more], 2 * jobs)
        row.disk = pairs * (4.5 * (self.texts.input + 2 * self.texts.output) + 40)
        return row

    def inference(
        self, stage: str, batch: int, length: float, more: float, predicted: float, read: float | None = None
    ) -> Row:
        """A row of the teacher without training.

        Texts have `length` tokens and `more` that do not grow with it, of which `read` (all, if None) go through the
        model side by side.
        """
        stack, model = self.teacher.decoder, self.teacher

        def memory(shape: Shape) -> Memory:
            positions = shape.batch * (shape.length + more)
            side_by_side = positions if read is None else shape.batch * read
            return Memory(
                weights=model.parameters * self.size / shape.gpus,
                # No more than training would keep of one layer.
                activations=side_by_side * stack.activations(self.size),
                cache=positions * stack.cache(self.size) / shape.gpus,
                logits=shape.batch * predicted * model.vocabulary * (self.size + 8),
            )

        return Row(
            task=self.task,
            stage=stage,
            model=self.settings.teacher.model,
            jobs=0,
            parameters=model.parameters,
            trained=0,
            shape=Shape(1, batch, length),
            memory=memory,
            batch_setting="annotate.batch_size",
            length_setting="teacher.max_tokens",
        )

    def answering(self, groups: list[tuple[int, int]]) -> tuple[float, float, list[tuple[float, float]]]:
        """Tokens, FLOPs and work (see `timed`) of the teacher's answers to groups of (inputs, tokens before each)."""
        stack, model = self.teacher.decoder, self.teacher
        prompt = min(self.settings.teacher.max_tokens, WORDING_TOKENS + self.texts.input)
        tokens, flops, work = 0.0, 0.0, []
        for number, prefix in groups:
            if self.texts.labels:
                tail = self.texts.labels * (self.texts.output - 1)
                read = stack.forward(number * (prompt + tail), prefix + prompt + tail)
                read += 2 * model.head * number * (tail + 1)
                tokens, flops = tokens + number * (prompt + tail), flops + read
                work.append((read, 0.0))
            else:
                new = min(self.settings.annotate.max_new_tokens, self.texts.output + 1)
                context = prefix + prompt + new / 2
                read = stack.forward(number * prompt, prefix + prompt)
                wrote = stack.forward(number * new, context) + 2 * model.head * number * new
                tokens, flops = tokens + number * (prompt + new), flops + read + wrote
                work += self.writing(number, new, context, read, wrote, self.settings.generate.batch_size)
        return tokens, flops, work

    def writing(
        self, texts: float, new: float, context: float, read: float, wrote: float, batch: int
    ) -> list:
        """Work of writing `new` tokens in each of some texts, a batch side by side."""
        weights = self.teacher.parameters * self.size
        passes = math.ceil(texts / batch) * new
        moved = passes * weights + texts * new * context * self.teacher.decoder.cache(self.size)
        return [(read, 0.0), (wrote, moved)]

    def timed(self, work: list[tuple[float, float]], loads: float) -> Callable[[int], float]:
        """Seconds of work on a number of GPUs: pairs of FLOPs and of bytes moved, the slower of which counts."""
        machine, plan = self.machine, self.plan
        reading = loads * self.teacher.parameters * self.size / (plan.read_rate * 1e9)

        def seconds(gpus: int) -> float:
            return reading + sum(
                max(
                    flops / (gpus * machine.tflops * 1e12 * plan.prefill_mfu),
                    moved / (gpus * machine.bandwidth * 1e9 * plan.bandwidth_share),
                )
                for flops, moved in work
            )

        return seconds

    def students(self) -> Row:
        """All cells."""
        chosen, texts = self.settings.students, self.texts
        writes = self.kind == "nlg"
        model = model_of(
            chosen.model,
            "writer" if writes else "classifier",
            texts.labels or 2,
            *((chosen.encoder_layers, chosen.decoder_layers) if writes else ()),
        )
        own = not is_seq2seq(chosen.model)
        encoder, decoder = model.encoder, model.decoder
        # An encoder–decoder made of an encoder learns in its decoder only; one that was pretrained as one learns whole. A
        # classifier's embeddings are frozen with its lowest layers, and also if no layer is.
        frozen_layers = min(chosen.frozen_layers, encoder.layers - 1)
        if writes:
            frozen_layers = encoder.layers if own else 0
        trained = model.parameters
        if own:
            trained -= model.below + frozen_layers * encoder.parameters
        layers = encoder.layers - frozen_layers
        length, out = min(chosen.max_tokens, texts.input + 2), min(chosen.max_new_tokens, texts.output + 2)

        def memory(shape: Shape) -> Memory:
            base = trained_memory(model.parameters - trained, trained, model.tensors, 4, shape.gpus)
            autocast = self.size < 4
            kept = activation_bytes(encoder, layers, shape.batch * shape.length, self.size, autocast=autocast)
            logits = 12 * model.vocabulary * shape.batch
            if writes:
                kept += activation_bytes(
                    decoder, decoder.layers, shape.batch * chosen.max_new_tokens, self.size, autocast=autocast
                )
                # Keys and values of the encoder's tokens in every layer of the decoder, above counted for its own.
                kept += (
                    2
                    * decoder.key
                    * decoder.layers
                    * self.size
                    * shape.batch
                    * (shape.length - chosen.max_new_tokens)
                )
                logits *= chosen.max_new_tokens
            return replace(
                base, activations=kept, logits=logits, gathered=gathered(model, self.size, shape.gpus)
            )

        generated = self.settings.budgets_of("generate")
        there = {
            budget: {"annotated": number} | ({"generated": self.settings.generate.pairs} if budget in generated else {})
            for budget, number in self.annotated().items()
        }
        cells = cells_given(there, self.settings.pool_size, self.kind, self.settings)
        most = {budget: budget + number for budget, number in self.annotated().items()}  # gold alone trains as long
        rows = {cell: {FULL: self.settings.pool_size, GOLD: most.get(cell.budget)}.get(cell.condition, cell.budget + cell.amount)
                for cell in cells}
        steps = sum(map(self.settings.steps, rows.values()))
        trainings = steps * chosen.batch_size
        part = replace(encoder, layers=layers)
        reads = replace(encoder, layers=frozen_layers).forward(length, length)
        upper = part.forward(length, length)
        head = 2 * model.head * (out if writes else 1)
        written = decoder.forward(out, out, length) if writes else 0
        # What is frozen reads every text of the task once, for all cells.
        distinct = (
            self.settings.pool_size + self.test + sum(sum(routes.values()) for routes in there.values())
        )
        tests = len(cells) * self.test
        once = distinct * reads if frozen_layers else 0
        flops = once + trainings * 3 * (upper + written + head) + tests * (upper + written + head)
        tokens = (trainings + tests) * (length + (out if writes else 0)) + (
            distinct * length if frozen_layers else 0
        )
        side_by_side = 100 if own else 32  # texts that the two kinds of writers write in a pass
        moved = self.size * model.parameters * len(cells) * math.ceil(self.test / side_by_side) * out if writes else 0

        def seconds(gpus: int) -> float:
            computing = flops / (gpus * self.machine.tflops * 1e12 * self.plan.student_mfu)
            reading = 4 * model.parameters * len(cells) / (self.plan.read_rate * 1e9)
            return computing + moved / (self.machine.bandwidth * 1e9 * self.plan.bandwidth_share) + reading

        return Row(
            task=self.task,
            stage=f"students, {'text' if writes else 'labels'}",
            model=chosen.model,
            jobs=len(cells),
            parameters=model.parameters,
            trained=trained,
            shape=Shape(1, chosen.batch_size, chosen.max_tokens),
            memory=memory,
            batch_setting="students.batch_size",
            length_setting="students.max_tokens",
            tokens=tokens,
            flops=flops,
            seconds=seconds,
            disk=len(cells) * (2000 + 8 * self.test),
        )


WIDTHS = (8, 7, 7, 7, 8, 7, 7, 7, 7, 5, 9)
"""Columns of the terminal that the numbers on memory take."""


@dataclass(frozen=True)
class Plan:
    """What a profile would take.

    Attributes
    ----------
    settings : Settings
    machine : Device
    gpus : int
        In all.
    price : float
        US dollars for an hour of one.
    table : DataFrame
        One row per task and stage. Memory is in GiB per GPU, times in hours, disk in bytes, money in US dollars.
    downloads : dict
        Bytes of each model's weights.
    advice : list of str
        What to change where a stage does not fit, for the task that needs most.
    """

    settings: Settings
    machine: Device
    gpus: int
    price: float
    table: pd.DataFrame
    downloads: dict[str, float]
    advice: list[str]

    def save(self) -> tuple[Path, Path]:
        """Write plan.csv and plan.json into the run's folder, and give their paths."""
        table, summary = self.settings.folder / "plan.csv", self.settings.folder / "plan.json"
        with atomic_path(table) as temporary:
            self.table.to_csv(temporary, index=False)
        sums = self.table[["tokens", "flops", "gpu_hours", "hours", "disk_bytes", "dollars"]].sum()
        write_json(
            summary,
            {
                "profile": self.settings.profile,
                "device": asdict(self.machine),
                "gpus": self.gpus,
                "assumptions": self.settings.plan.model_dump(mode="json"),
                "tokens_per_text": {task: asdict(Texts.of(task, self.settings)) for task in self.settings.tasks},
                "total": {name: float(value) for name, value in sums.items()},
                "download_bytes": self.downloads,
                "advice": self.advice,
            },
        )
        return table, summary

    def text(self) -> str:
        """The plan for a terminal of 100 columns."""
        table, machine = self.table, self.machine
        each = f"{machine.memory:,.0f} GiB, {machine.tflops:,.4g} TFLOP/s, {machine.bandwidth:,.0f} GB/s"
        lines = [
            f"Profile {self.settings.profile} on {self.gpus} × {machine.name} ({each}), ${self.price:.2f} an hour each",
            "",
            "Models",
        ]
        first = table.sort_values("trained", ascending=False).drop_duplicates("model")
        lines += [
            f"  {row.model:<24} {_short(row.parameters):>8} parameters, {_short(row.trained):>8} trained,"
            f" {self.downloads[row.model] / 1e9:6.2f} GB to download"
            for row in first.itertuples()
        ]
        heads = (
            "weights",
            "grads",
            "optim.",
            "activ.",
            "checkp.",
            "cache",
            "logits",
            "gather",
            "total",
            "GPUs",
            "batch",
        )
        lines += [
            "",
            "Memory in GiB on each GPU, for the task that needs most; GPUs a job needs; texts in a pass",
            " " * 21 + "".join(f"{head:>{width}}" for head, width in zip(heads, WIDTHS, strict=True)),
        ]
        for stage, rows in table.groupby("stage", sort=False):
            row = rows.sort_values(["gpus_needed", "memory_total"]).iloc[-1]
            gpus = "none" if pd.isna(row["gpus_needed"]) else f"{int(row['gpus_needed'])}"
            cells = [row[f"memory_{name}"] for name in ("weights", "gradients", "optimizer")]
            kept, again = row["activations_kept"], row["activations_checkpointed"]
            lines.append(
                f"{stage:<21}{cells[0]:>8.2f}{cells[1]:>7.2f}{cells[2]:>7.2f}{kept:>7.2f}"
                f"{'' if pd.isna(again) else f'{again:.2f}':>8}"
                f"{row['memory_cache']:>7.2f}{row['memory_logits']:>7.2f}{row['memory_gathered']:>7.2f}"
                f"{row['memory_total']:>7.2f}{gpus:>5}{row['batch']:>4.0f}/{row['largest_batch']:<4.0f}"
            )
        way = self.settings.teacher.activations
        lines += [
            f"activ., checkp.: activations kept, or checkpointed (total: {way}). batch: set/most that fit",
            "",
            f"{'Work':<21}{'jobs':>6}{'tokens':>10}{'FLOP':>10}{'GPU hours':>11}{'hours':>9}{'disk':>10}{'dollars':>10}",
        ]
        lines += [self._work(stage, rows) for stage, rows in table.groupby("stage", sort=False)]
        lines += [self._work("all", table), "", f"{'By task':<21}"]
        lines += [self._work(task, rows) for task, rows in table.groupby("task", sort=False)]
        total = sum(self.downloads.values())
        lines += ["", f"Download: {total / 1e9:.1f} GB of weights; the corpora are not counted."]
        lines += [textwrap.fill(sentence, 100, subsequent_indent="  ") for sentence in self.advice]
        return "\n".join(lines)

    @staticmethod
    def _work(name: str, rows: pd.DataFrame) -> str:
        sums = rows[["jobs", "tokens", "flops", "gpu_hours", "hours", "disk_bytes", "dollars"]].sum()
        return (
            f"{name:<21}{sums['jobs']:>6.0f}{_short(sums['tokens']):>10}{_short(sums['flops']):>10}"
            f"{sums['gpu_hours']:>11.2f}{sums['hours']:>9.2f}{_short(sums['disk_bytes']) + 'B':>10}"
            f"{sums['dollars']:>10.2f}"
        )


def plan(settings: Settings) -> Plan:
    """Work out what a profile would take.

    Parameters
    ----------
    settings : Settings
        `settings.plan` says on which GPUs, how fast and at what price.

    Returns
    -------
    Plan

    Raises
    ------
    SettingsError
        For an unknown GPU or model, with the nearest names.
    """
    chosen, machine = settings.plan, device(settings)
    limit = machine.memory * GIB * (1 - chosen.memory_reserve)
    rows = [row for task in settings.tasks for row in _Stages(task, settings, machine).rows()]
    needed = [smallest_gpus(row, limit) for row in rows]
    gpus = 1 if chosen.gpu == "cpu" else chosen.gpus or max((count for count in needed if count), default=1)
    price = settings.cost_per_hour if chosen.price is None else chosen.price
    records, worst = [], {}
    for row, count in zip(rows, needed, strict=True):
        fits = count is not None and count <= gpus
        # What does not fit is shown on all the GPUs there are.
        used = count if fits else gpus
        shape = row.at(used)
        memory = row.memory(shape)
        kept, again = (
            row.memory(replace(shape, activations=way)).activations / GIB for way in ("kept", "checkpointed")
        )
        hours = row.seconds(used) / 3600
        side_by_side = min(gpus // used, max(row.jobs, 1)) if fits else 1
        records.append(
            {
                "task": row.task,
                "stage": row.stage,
                "model": row.model,
                "jobs": row.jobs,
                "parameters": row.parameters,
                "trained": row.trained,
                "gpus_needed": count,
                "gpus_used": used,
                "batch": shape.batch,
                "largest_batch": max(0, largest(row, shape, "batch", limit)),
                **{f"memory_{part.name}": getattr(memory, part.name) / GIB for part in fields(memory)},
                "memory_total": memory.total / GIB,
                "activations_kept": kept,
                "activations_checkpointed": again if row.tunes else math.nan,
                "fits": fits,
                "tokens": row.tokens,
                "flops": row.flops,
                "gpu_hours": hours * used,
                "hours": hours / side_by_side,
                "disk_bytes": row.disk,
                "dollars": hours * used * price,
            }
        )
        if not fits and memory.total > worst.get(row.stage, (0, row))[0]:
            worst[row.stage] = memory.total, row
    advice = []
    for stage, (total, row) in worst.items():
        found = remedies(row, gpus, chosen, limit)
        advice.append(
            f"{stage} ({row.task} needs most) does not fit on {gpus} × {machine.name}, {total / GIB:,.1f} of "
            f"{limit / GIB:,.1f} GiB: "
            + (f"any of {', '.join(found)} would do." if found else "no single setting is enough.")
        )
    copies = [count for row, count in zip(rows, needed, strict=True) if row.stage in ANSWERING and count]
    if chosen.gpu != "cpu" and max(copies, default=1) > 1:
        advice.append(
            f"A copy of the teacher that annotates and generates takes {max(copies)} GPUs: set annotate.processes and "
            f"generate.processes to a machine's GPUs divided by {max(copies)}"
            + ("." if settings.generate.engine == "batches" else
               ", and generate.engine=batches: other engines work where one GPU holds the teacher.")
        )
    names = dict.fromkeys(row.model for row in rows)
    return Plan(
        settings,
        machine,
        gpus,
        price,
        pd.DataFrame(records),
        {name: _download(name, rows) for name in names},
        advice,
    )


def _download(name: str, rows: list[Row]) -> float:
    return assets.download_bytes(name, min(row.parameters for row in rows if row.model == name))


def _short(number: float) -> str:
    """1,234,567 as "1.2 M"."""
    for unit, factor in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number:.0f} "
