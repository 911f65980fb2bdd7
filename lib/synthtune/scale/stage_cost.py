"""What each stage of a task takes: memory, FLOPs, time, disk, and what it asks of an endpoint.

`synthtune.scale.model_cost` has the formulas of FLOPs and of memory, and their sources. Texts are not read, but for those of custom
tasks: task_list.yaml states how long they are on average, which is good for sums of tokens; memory is that of the longest
texts the settings allow.

Students are trained under autocast: weights, gradients and moments are float32, most activations of `number_format`. The hidden
states that frozen layers give wait in the machine's memory, not on the GPU.

A teacher that is not trained takes its weights and its cache, over the GPUs of a job, what one layer would keep for the
texts it reads, and (e + 8)·V bytes for each token it predicts.

Time. Training and reading texts take FLOPs / (N · peak · share of the peak). The share is that of all FLOPs carried
out, PaLM's hardware utilisation, equal to its MFU where nothing is checkpointed. Training on several GPUs takes no
less than gathering the weights twice a step over the link. Decoding a token takes the longer of its FLOPs and of reading
all weights and the cache from memory (Williams et al. 2009, the roofline). Each notebook reads the weights from disk
once, and so does each student. Padding is not counted.

Endpoints. What a stage asks of `endpoint` takes nothing of this machine. Tokens are estimated as `synthtune.models.endpoint` does:
four characters a token of instructions, and the longest answers that are allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from synthtune import tasks
from synthtune.conditions import FULL, GOLD
from synthtune.experiment import cells_given
from synthtune.models import assets, names
from synthtune.number_format import BYTES
from synthtune.scale.devices import Device
from synthtune.scale.model_cost import (
    LOGITS_AT_ONCE,
    Architecture,
    Memory,
    activation_bytes,
    gathered,
    is_seq2seq,
    model_of,
    trained_memory,
    training_flops,
)
from synthtune.settings import Settings

# Bytes of weights that are read from disk a second.
DISK_RATE = 1e9

# What a prompt template adds to an input: the names of input and output.
PROMPT_TOKENS = 8

# Of requests to an endpoint: tokens around a message, and of the words in which new pairs are asked for.
MESSAGE_TOKENS, REQUEST_TOKENS = 4, 60


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
        As in `TeacherSettings`.
    """

    gpus: int
    batch: float
    length: float
    activations: str = "kept"
    method: str = "full"


class Stage:
    """One stage of one task, at all budgets.

    `memory` gives the bytes on each GPU of a job of some shape; `seconds` those of all jobs, one after the other, each on so many GPUs.

    Attributes
    ----------
    name, model : str
    jobs : int
        Notebooks' parts that may run side by side: teachers to train, stages to run, student cells.
    parameters, trained : float
        Of the model.
    shape : Shape
        As the settings have it, on one GPU.
    batch_setting, length_setting : str
        Settings that change the shape's batch and length.
    tunes : bool
        Whether the teacher is trained: its batch is then divided over the GPUs of the job.
    tokens, flops : float
        Read and written, over all jobs.
    disk : float
        Bytes written.
    requests, tokens_sent, tokens_received : int
        Of an endpoint: how often it is asked, and the tokens that it reads and, at most, writes.
    """

    parameters = trained = tokens = flops = disk = 0.0
    requests = tokens_sent = tokens_received = 0
    tunes = False

    def __init__(self, task: str, settings: Settings, machine: Device, texts: Texts) -> None:
        self.task, self.settings, self.machine, self.texts = task, settings, machine, texts
        self.plan, self.size = settings.plan, BYTES[settings.planned_format]
        self.teacher = model_of(settings.teacher.model, "teacher")
        # Tokens that the P(X,Y) teacher writes, but for the few of gold that are not among the commonest.
        self.vocabulary = min(settings.teacher.vocabulary or self.teacher.vocabulary, self.teacher.vocabulary)
        self.generating = settings.budgets_of("generate")
        self.test = settings.test_size if texts.labels else settings.nlg_test_size
        self.annotated = {budget: min(settings.annotate.inputs or settings.pool_size, settings.pool_size - budget)
                          for budget in settings.budgets}

    def at(self, gpus: int) -> Shape:
        """The shape on so many GPUs."""
        batch = math.ceil(self.shape.batch / gpus) if self.tunes else self.shape.batch
        return replace(self.shape, gpus=gpus, batch=batch)

    def computing(self, flops: float, gpus: int, share: float) -> float:
        """Seconds that FLOPs take at a share of the peak."""
        return flops / (gpus * self.machine.tflops * 1e12 * share)

    def loading(self, bytes_: float) -> float:
        """Seconds that reading weights from disk takes."""
        return bytes_ / DISK_RATE


class FineTune(Stage):
    """LoRA or full fine-tuning at every budget, of the teacher that annotates or of the one that generates."""

    batch_setting, length_setting, tunes = "teacher.batch_size", "teacher.max_tokens", True

    def __init__(self, objective: str, *given) -> None:
        super().__init__(*given)
        chosen, texts, stack = self.settings.teacher, self.texts, self.teacher.decoder
        labels_only = texts.labels > 0
        self.name, self.model = f"fine-tune, {objective}", chosen.model
        self.layers = stack.layers - min(chosen.frozen_layers, stack.layers - 1)
        self.length = min(chosen.max_tokens, PROMPT_TOKENS + texts.input + texts.output)
        self.epochs = {budget: self.settings.epochs(budget, objective) for budget in self.settings.budgets_of(objective)}
        # The tokens that are learned, and among how many they are chosen.
        self.labelling, self.known, self.learned = labels_only, self.teacher.vocabulary, texts.output + (not labels_only)
        if objective == "generate":
            self.labelling, self.known = False, self.vocabulary
            self.learned = min(self.length, texts.input + 1 + (0 if labels_only else texts.output))
        frozen, self.trained, _ = self.sizes(chosen.method)
        self.parameters, self.jobs = frozen + self.trained, len(self.epochs)
        self.shape = Shape(1, chosen.batch_size, chosen.max_tokens, chosen.activations, chosen.method)
        passes = sum(budget * times for budget, times in self.epochs.items())
        each, once = self.flops_of_a_text()
        self.tokens, self.flops = passes * self.length, passes * each + sum(self.epochs) * once
        self.disk = self.jobs * self.trained * 4

    def sizes(self, method: str) -> tuple[float, float, int]:
        """Frozen parameters, trained ones and their tensors."""
        model, stack = self.teacher, self.teacher.decoder
        if method == "full":
            return 0, model.parameters, model.tensors
        return model.parameters, self.layers * stack.adapter(self.settings.teacher.lora_rank), self.layers * stack.maps * 2

    def flops_of_a_text(self) -> tuple[float, float]:
        """FLOPs of a text in each epoch, and of the frozen layers, which read it once."""
        chosen, stack, length = self.settings.teacher, self.teacher.decoder, self.length
        lora = chosen.method == "lora"
        above, below = (replace(stack, layers=number).forward(length, length) for number in (self.layers, stack.layers - self.layers))
        head = 2 * self.teacher.head * self.known / self.teacher.vocabulary * self.learned
        adapters = 2 * self.layers * stack.adapter(chosen.lora_rank) * length if lora else 0
        flops = training_flops(above, self.layers * stack.attention(length, length), head, adapters, lora)
        if chosen.activations == "checkpointed":
            flops += head + (above + adapters if lora else above - 2 * self.layers * stack.last * length)
        return flops, below

    def memory(self, shape: Shape) -> Memory:
        stack, checkpointed = self.teacher.decoder, shape.activations == "checkpointed"
        # The longest text may be all output, unless the output is a label.
        predicted = shape.batch * (self.learned if self.labelling else shape.length)
        logits = 12 * self.known * predicted
        if checkpointed:
            logits = 12 * self.known * LOGITS_AT_ONCE + self.size * stack.hidden * predicted
        rank = 0 if shape.method == "full" else self.settings.teacher.lora_rank
        return replace(
            trained_memory(*self.sizes(shape.method), self.size, shape.gpus),
            activations=activation_bytes(stack, self.layers, shape.batch * shape.length, self.size, rank, self.teacher.norms, checkpointed),
            logits=logits, gathered=gathered(self.teacher, self.size, shape.gpus))

    def seconds(self, gpus: int) -> float:
        steps = sum(math.ceil(budget / self.settings.teacher.batch_size) * times for budget, times in self.epochs.items())
        sent = steps * (2 * self.parameters * self.size + 4 * self.trained) * (gpus - 1) / gpus
        # Both teachers are trained in one notebook, which reads the weights once.
        reading = self.loading(self.jobs * self.teacher.parameters * self.size) / 2
        return max(self.computing(self.flops, gpus, self.plan.mfu), sent / (self.machine.link * 1e9)) + reading


class Inference(Stage):
    """The teacher without training, or a prompted model in its place.

    It starts as a stage that takes nothing; `answer` and `decode` add what the teacher does, `ask` what an endpoint does.
    """

    batch_setting, length_setting = "annotate.batch_size", "teacher.max_tokens"

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.jobs, self.shape = len(self.settings.budgets), Shape(1, 1, 1)
        self.model = self.settings.endpoint.model if self.settings.endpoint else self.settings.teacher.model
        # FLOPs and bytes moved, the slower of which counts.
        self.work: list[tuple[float, float]] = []
        self.loads = 0
        self.more = self.predicted = 0.0
        self.side_by_side: float | None = None

    def holds(self, shape: Shape, more: float, predicted: float, side_by_side: float | None = None) -> None:
        """Keep the teacher in memory.

        Texts have `shape.length` tokens and `more` that do not grow with it, of which `side_by_side` (all, if None) go through
        the model at once, and `predicted` are predicted.
        """
        self.model, self.parameters, self.shape = self.settings.teacher.model, self.teacher.parameters, shape
        self.more, self.predicted, self.side_by_side = more, predicted, side_by_side

    def memory(self, shape: Shape) -> Memory:
        if not self.parameters:
            return Memory()
        stack, model = self.teacher.decoder, self.teacher
        positions = shape.batch * (shape.length + self.more)
        reading = positions if self.side_by_side is None else shape.batch * self.side_by_side
        return Memory(
            weights=model.parameters * self.size / shape.gpus,
            activations=reading * stack.activations(self.size),  # no more than training would keep of one layer
            cache=positions * stack.cache(self.size) / shape.gpus,
            logits=shape.batch * self.predicted * model.vocabulary * (self.size + 8),
        )

    def seconds(self, gpus: int) -> float:
        bandwidth = gpus * self.machine.bandwidth * 1e9 * self.plan.bandwidth_share
        return self.loading(self.loads * self.teacher.parameters * self.size) + sum(
            max(self.computing(flops, gpus, self.plan.prefill_mfu), moved / bandwidth) for flops, moved in self.work)

    def answer(self, groups: list[tuple[int, int]]) -> None:
        """Labels scored or outputs decoded for groups of (inputs, tokens in front of each)."""
        chosen, texts, stack = self.settings, self.texts, self.teacher.decoder
        length = chosen.teacher.max_tokens
        prompt = min(length, PROMPT_TOKENS + texts.input)
        before = max(prefix for _, prefix in groups)
        if not texts.labels:
            for number, prefix in groups:
                self.decode(number, prompt, prefix, min(chosen.annotate.max_new_tokens, texts.output + 1), self.teacher.vocabulary)
            self.batch_setting = "generate.batch_size"
            self.holds(Shape(1, chosen.generate.batch_size, length), chosen.annotate.max_new_tokens + before, 1)
            return
        tail = texts.labels * (texts.output - 1)
        for number, prefix in groups:
            read = stack.forward(number * (prompt + tail), prefix + prompt + tail)
            self.add(number * (prompt + tail), read + 2 * self.teacher.head * number * (tail + 1))
        self.holds(Shape(1, chosen.annotate.batch_size, length), tail + before, tail + 1)

    def decode(self, number: int, prompt: int, prefix: int, new: int, vocabulary: int) -> None:
        """`new` tokens for each of some prompts, chosen among `vocabulary`, a batch side by side."""
        stack, context = self.teacher.decoder, prefix + prompt + new / 2
        head = 2 * self.teacher.head * vocabulary / self.teacher.vocabulary
        passes = math.ceil(number / self.settings.generate.batch_size) * new
        moved = passes * self.teacher.parameters * self.size + number * new * context * stack.cache(self.size)
        self.add(number * prompt, stack.forward(number * prompt, prefix + prompt))
        self.add(number * new, stack.forward(number * new, context) + head * number * new, moved)

    def add(self, tokens: float, flops: float, moved: float = 0.0) -> None:
        """Tokens that are read or written, with their FLOPs and the bytes that are moved."""
        self.tokens, self.flops = self.tokens + tokens, self.flops + flops
        self.work.append((flops, moved))

    def ask(self, number: int, shots: int | None = None) -> None:
        """An endpoint's answers to inputs, each in a request of its own."""
        from synthtune.models import endpoint  # its client library takes a second to import, and few ask

        texts, server = self.texts, self.settings.endpoint
        shots = max(server.shots, default=0) if shots is None else shots
        written = self.settings.annotate.max_new_tokens
        if texts.labels:
            written = max(16, 4 * texts.output) + endpoint.JSON_TOKENS
        read = self.instruction() + (2 + 2 * shots) * MESSAGE_TOKENS + shots * (texts.input + texts.output) + texts.input
        self.send(number, read, written)

    def send(self, requests: int, sent: int, received: int) -> None:
        """Requests to an endpoint, of so many tokens each."""
        self.requests += requests
        self.tokens_sent += requests * sent
        self.tokens_received += requests * received

    def instruction(self) -> int:
        """Tokens of the task in a sentence, and of its labels."""
        return math.ceil(len(tasks.spec_of(self.task, self.settings).template.instruction) / 4) + self.texts.labels * self.texts.output


class Evaluate(Inference):
    """The teacher's answers to test inputs: tuned at every budget, prompted at the smallest; and the endpoint's for figure 4."""

    name = "evaluate"

    def __init__(self, *given) -> None:
        super().__init__(*given)
        chosen, server, texts = self.settings.teacher, self.settings.endpoint, self.texts
        prompted, shot = min(self.test, chosen.prompted_examples), PROMPT_TOKENS + texts.input + texts.output
        tuned = [(min(self.test, chosen.test_examples), 0)] * self.jobs
        groups = [*tuned, (prompted, 0), (prompted, chosen.shots * shot)]
        self.answer(groups)
        self.disk = 8 * sum(number for number, _ in groups)
        for shots in server.shots if server else ():
            self.ask(min(self.test, server.max_test_examples), shots)


class Annotate(Inference):
    """An output for every unlabelled input."""

    name = "annotate"

    def __init__(self, *given) -> None:
        super().__init__(*given)
        texts, inputs = self.texts, sum(self.annotated.values())
        self.disk = inputs * (4.5 * (texts.input + texts.output) + 8 * (texts.labels + 2))
        if self.settings.annotate.source == "endpoint":
            self.ask(inputs)
        else:
            self.loads = self.jobs
            self.answer([(number, 0) for number in self.annotated.values()])
        if self.settings.annotate.beside:
            self.ask(inputs)


class Generate(Inference):
    """New pairs, and the annotator's output for each."""

    name = "generate"

    def __init__(self, *given) -> None:
        super().__init__(*given)
        chosen, texts = self.settings.generate, self.texts
        self.jobs = len(self.generating)
        pairs = self.jobs * chosen.pairs
        self.disk = pairs * (4.5 * (texts.input + 2 * texts.output) + 40)
        if self.settings.annotate.source == "endpoint":
            self.ask(pairs)
        else:
            self.loads += self.jobs
            self.answer([(chosen.pairs, 0)] * self.jobs)
        if chosen.source == "endpoint":
            self.ask_for_pairs()
        else:
            self.loads += self.jobs
            new = min(chosen.max_new_tokens, texts.input + (0 if texts.labels else texts.output) + 1)
            self.decode(pairs, PROMPT_TOKENS, 0, new, self.vocabulary)
            self.batch_setting, self.length_setting = "generate.batch_size", "generate.max_new_tokens"
            self.holds(Shape(1, chosen.batch_size, chosen.max_new_tokens), PROMPT_TOKENS, 1, PROMPT_TOKENS)

    def ask_for_pairs(self) -> None:
        """An endpoint's pairs: as many for each label, several to a request that shows examples of that label."""
        from synthtune.models.endpoint import JSON_TOKENS, PAIRS_AT_ONCE

        chosen, texts, labels = self.settings.generate, self.texts, max(self.texts.labels, 1)
        each = texts.input + (0 if texts.labels else texts.output)
        read = self.instruction() + 2 * MESSAGE_TOKENS + REQUEST_TOKENS + max(self.settings.endpoint.shots, default=0) * each
        requests = sum(math.ceil(len(range(label, chosen.pairs, labels)) / PAIRS_AT_ONCE) for label in range(labels))
        self.send(self.jobs * requests, read, PAIRS_AT_ONCE * (chosen.max_new_tokens + JSON_TOKENS))


class Students(Stage):
    """All cells of students.

    Raises
    ------
    AssetError
        If the task needs students that generate text and the model cannot.
    """

    batch_setting, length_setting = "students.batch_size", "students.max_tokens"

    def __init__(self, *given) -> None:
        super().__init__(*given)
        chosen, texts = self.settings.students, self.texts
        self.generates, self.whole = not texts.labels, is_seq2seq(chosen.model)
        self.network = self.built()
        # A seq2seq student made of an encoder learns in its decoder only; one that was pretrained as one learns whole. A
        # classifier's embeddings are frozen with its lowest layers, and also if no layer is.
        encoder = self.network.encoder
        frozen = min(chosen.frozen_layers, encoder.layers - 1)
        if self.generates:
            frozen = 0 if self.whole else encoder.layers
        self.lower, self.upper = replace(encoder, layers=frozen), replace(encoder, layers=encoder.layers - frozen)
        self.name, self.model = f"students, {'text' if self.generates else 'labels'}", chosen.model
        self.parameters = self.network.parameters
        self.trained = self.parameters - (0 if self.whole else self.network.below + frozen * encoder.parameters)
        self.shape = Shape(1, chosen.batch_size, chosen.max_tokens)
        self.output = min(chosen.max_new_tokens, texts.output + 2) if self.generates else 0
        self.count_work()

    def built(self) -> Architecture:
        """The student's architecture."""
        chosen, classifies = self.settings.students, self.texts.labels
        if classifies:
            return model_of(chosen.model, "classifier", classifies)
        model_type = assets.architecture(chosen.model)["model_type"]
        if not self.whole and model_type != "bert":
            raise names.no_text_student(chosen.model, model_type, self.task)
        return model_of(chosen.model, "seq2seq student", 2, chosen.encoder_layers, chosen.decoder_layers)

    def count_work(self) -> None:
        """Jobs, tokens, FLOPs and disk of all cells."""
        chosen, settings = self.settings.students, self.settings
        routes = {budget: {"annotated": number, "prompted": number if settings.annotate.beside else 0}
                  | ({"generated": settings.generate.pairs} if budget in self.generating else {})
                  for budget, number in self.annotated.items()}
        cells = cells_given(routes, settings.pool_size, "generation" if self.generates else "classification", settings)
        most = {budget: budget + number for budget, number in self.annotated.items()}  # gold alone trains as long
        rows = {cell: {FULL: settings.pool_size, GOLD: most.get(cell.budget)}.get(cell.condition, cell.budget + cell.amount)
                for cell in cells}
        length, out = min(chosen.max_tokens, self.texts.input + 2), self.output
        trainings, tests = sum(map(settings.steps, rows.values())) * chosen.batch_size, len(cells) * self.test
        # What is frozen reads every text of the task once, for all cells.
        once = self.lower.layers and settings.pool_size + self.test + sum(sum(each.values()) for each in routes.values())
        forward = self.upper.forward(length, length) + 2 * self.network.head * max(out, 1)
        if self.generates:
            forward += self.network.decoder.forward(out, out, length)
        self.jobs = len(cells)
        self.tokens = (trainings + tests) * (length + out) + once * length
        self.flops = once * self.lower.forward(length, length) + (3 * trainings + tests) * forward
        self.disk = self.jobs * (2000 + 8 * self.test)

    def memory(self, shape: Shape) -> Memory:
        model, chosen, autocast = self.network, self.settings.students, self.size < 4
        kept = activation_bytes(self.upper, self.upper.layers, shape.batch * shape.length, self.size, autocast=autocast)
        logits = 12 * model.vocabulary * shape.batch
        if self.generates:
            decoder, written = model.decoder, chosen.max_new_tokens
            kept += activation_bytes(decoder, decoder.layers, shape.batch * written, self.size, autocast=autocast)
            # Keys and values of the encoder's tokens in every layer of the decoder, above counted for its own.
            kept += decoder.cache(self.size) * shape.batch * (shape.length - written)
            logits *= written
        base = trained_memory(self.parameters - self.trained, self.trained, model.tensors, 4, shape.gpus)
        return replace(base, activations=kept, logits=logits, gathered=gathered(model, self.size, shape.gpus))

    def seconds(self, gpus: int) -> float:
        side_by_side = 32 if self.whole else 100  # texts that the two kinds of seq2seq students decode in a pass
        moved = self.size * self.parameters * self.jobs * math.ceil(self.test / side_by_side) * self.output
        return (self.computing(self.flops, gpus, self.plan.student_mfu)
                + moved / (self.machine.bandwidth * 1e9 * self.plan.bandwidth_share)
                + self.loading(4 * self.parameters * self.jobs))


def stages(task: str, settings: Settings, machine: Device) -> list[Stage]:
    """Every stage of a task.

    Parameters
    ----------
    task : str
    settings : Settings
        Of the whole profile.
    machine : Device
    """
    given = task, settings.for_task(task), machine, Texts.of(task, settings)
    return [FineTune("annotate", *given), FineTune("generate", *given), Evaluate(*given), Annotate(*given), Generate(*given),
            Students(*given)]
