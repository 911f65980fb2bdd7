"""The planner: its formulae against measured parameters, FLOPs and bytes of small models, and the plans it makes."""

import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from synthtune import settings, student
from synthtune.errors import AssetError, SettingsError
from synthtune.models.fine_tuning import TargetLoss, linear_names
from synthtune.run import reproduce
from synthtune.scale import model_cost, planner, stage_cost
from synthtune.task_list import SPECS
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    DynamicCache,
    EncoderDecoderModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

BATCH, LENGTH, LAYERS, RANK = 3, 40, 6, 4


def neox(**changes):
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=120,
            hidden_size=64,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            intermediate_size=256,
            **changes,
        )
    )


def neox_in_order():
    return neox(use_parallel_residual=False)


def neox_fast_gelu():
    return neox(hidden_act="gelu_fast")


def llama():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=120,
            hidden_size=64,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=160,
            tie_word_embeddings=True,
        )
    )


def roberta():
    return RobertaForSequenceClassification(
        RobertaConfig(
            vocab_size=120,
            hidden_size=64,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            intermediate_size=256,
            num_labels=3,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def bart():
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=120,
            d_model=64,
            encoder_layers=LAYERS,
            decoder_layers=4,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=256,
            decoder_ffn_dim=128,
            dropout=0.0,
        )
    )


def warm_started():
    sizes = {"vocab_size": 120, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return EncoderDecoderModel(
        encoder=BertModel(BertConfig(num_hidden_layers=3, **sizes), add_pooling_layer=False),
        decoder=BertLMHeadModel(
            BertConfig(num_hidden_layers=2, is_decoder=True, add_cross_attention=True, **sizes)
        ),
    )


def ids(length=LENGTH):
    return torch.randint(3, 100, (BATCH, length), generator=torch.Generator().manual_seed(0))


def inputs(model, target=LENGTH):
    """What a model is fed: encoder–decoders have outputs of another length."""
    if model.config.is_encoder_decoder:
        return {"input_ids": ids(), "decoder_input_ids": ids(target)}
    return {"input_ids": ids()}


def with_lora(model):
    """A model with LoRA on every layer, as the teacher has it, whose lowest layer passes gradients on like others."""
    torch.manual_seed(0)
    model.enable_input_require_grads()
    return get_peft_model(
        model, LoraConfig(r=RANK, target_modules=linear_names(model), task_type="CAUSAL_LM")
    )


# Parameters.


@pytest.mark.parametrize(
    ("name", "role", "published"),
    [
        ("gpt-neox-20b", "teacher", 20_554_567_680),
        ("roberta-large", "classifier", 355_361_794),
        ("bart-large", "seq2seq student", 406_291_456),
        ("smollm2-135m-instruct", "teacher", 134_515_008),
        ("minilm-l6-v2", "classifier", 22_713_216 + 2 * 385),
    ],
)
def test_declared_models_have_the_published_number_of_parameters(name, role, published):
    assert model_cost.model_of(name, role).parameters == published


@pytest.mark.parametrize("make", [neox, llama, roberta, bart, warm_started])
def test_sizes_are_read_off_any_of_the_architectures(make):
    model = make()
    found = model_cost.architecture(model)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    layers = [module for name, module in model.named_modules() if name.rpartition(".")[2].isdigit()]
    layers = [
        layer for layer in layers if "Layer" in type(layer).__name__ and "Norm" not in type(layer).__name__
    ]
    stacks = [stack for stack in (found.encoder, found.decoder) if stack]
    assert sum(stack.layers for stack in stacks) == len(layers)
    assert sum(stack.layers * stack.parameters for stack in stacks) == sum(
        parameter.numel() for layer in layers for parameter in layer.parameters()
    )
    assert found.vocabulary == (3 if make is roberta else 120)


@pytest.mark.parametrize("make", [neox, llama])
def test_trained_parameters_of_lora_are_those_of_peft(make):
    model = make()
    stack = model_cost.architecture(model).decoder
    trained = [parameter for parameter in with_lora(model).parameters() if parameter.requires_grad]
    assert LAYERS * stack.adapter(RANK) == sum(parameter.numel() for parameter in trained)
    assert LAYERS * stack.maps * 2 == len(trained)


# FLOPs. Attention in one step is counted differently by kernel, so it is taken apart here.


def in_steps(model):
    for part in model.modules():
        if hasattr(part, "config"):
            part.config._attn_implementation = "eager"


def measured_flops(model, run):
    counter = FlopCounterMode(display=False)
    with counter:
        output = run()
    forward = counter.get_total_flops()
    with counter:
        output.float().sum().backward()
    return forward, forward + counter.get_total_flops()


@pytest.mark.parametrize("make", [neox, llama])
@pytest.mark.parametrize("lora", [False, True])
def test_flops_of_a_causal_model(make, lora):
    model = make()
    in_steps(model)
    found = model_cost.architecture(model)
    stack, tokens = found.decoder, BATCH * LENGTH
    forward, head = stack.forward(tokens, LENGTH), 2 * found.head * tokens
    adapters = 2 * LAYERS * stack.adapter(RANK) * tokens if lora else 0
    attention = LAYERS * stack.attention(tokens, LENGTH)
    predicted = model_cost.training_flops(forward, attention, head, adapters, lora)
    trained = with_lora(model) if lora else model
    first, both = measured_flops(trained, lambda: trained(**inputs(model), use_cache=False).logits)
    assert forward + head + adapters == pytest.approx(first, rel=0.01)
    assert predicted == pytest.approx(both, rel=0.01)


@pytest.mark.parametrize("make", [roberta, bart, warm_started])
def test_flops_of_a_student(make):
    model = make()
    in_steps(model)
    found, target = model_cost.architecture(model), 24
    predicted = found.encoder.forward(BATCH * LENGTH, LENGTH)
    if found.decoder:
        predicted += BATCH * (found.decoder.forward(target, target, LENGTH) + 2 * found.head * target)
    else:
        predicted += 2 * found.head * BATCH
    first, both = measured_flops(model, lambda: model(**inputs(model, target)).logits)
    assert predicted == pytest.approx(first, rel=0.02)
    assert 3 * predicted == pytest.approx(both, rel=0.02)


@pytest.mark.parametrize("make", [neox, neox_in_order, llama])
@pytest.mark.parametrize("lora", [False, True])
def test_flops_of_checkpointed_layers(make, lora):
    model = make()
    in_steps(model)
    found = model_cost.architecture(model)
    trained = with_lora(model) if lora else model
    model.train().activation_checkpointing_enable({"use_reentrant": False})
    stack, tokens = found.decoder, BATCH * LENGTH
    forward, head, attention = stack.forward(tokens, LENGTH), 2 * found.head * tokens, stack.attention(tokens, LENGTH)
    adapters = 2 * LAYERS * stack.adapter(RANK) * tokens if lora else 0
    once = model_cost.training_flops(forward, LAYERS * attention, head, adapters, lora)
    _, both = measured_flops(trained, lambda: trained(**inputs(model), use_cache=False).logits)
    again = forward + adapters if lora else forward - 2 * LAYERS * stack.last * tokens
    assert once + again == pytest.approx(both, rel=0.01)


def test_flops_are_those_of_palm():
    found = model_cost.model_of("gpt-neox-20b", "teacher")
    stack, context = found.decoder, 2048
    per_token = model_cost.training_flops(stack.forward(1, context), 0, 2 * found.head)
    embeddings, others = 50432 * 6144, 44 * (stack.parameters - stack.linear) + 2 * 6144
    assert per_token == 6 * (found.parameters - embeddings - others) + 12 * 44 * 6144 * context


def test_writing_token_by_token_takes_the_flops_of_reading_at_once():
    stack = model_cost.model_of("smollm2-135m-instruct", "teacher").decoder
    steps = sum(stack.forward(1, place + 0.5) for place in range(64))
    assert steps == pytest.approx(stack.forward(64, 32))


# Memory.


def bytes_of(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("lora", [False, True])
def test_bytes_of_weights_gradients_and_optimizer_after_a_step(lora):
    model = llama().to(torch.bfloat16 if lora else torch.float32)
    found = model_cost.architecture(model)
    model = with_lora(model) if lora else model
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(input_ids=ids(), use_cache=False).logits.float().sum().backward()
    optimizer.step()
    if lora:
        adapters = LAYERS * found.decoder.adapter(RANK)
        memory = model_cost.trained_memory(
            found.parameters, adapters, LAYERS * found.decoder.maps * 2, size=2
        )
    else:
        memory = model_cost.trained_memory(0, found.parameters, found.tensors, size=2)
    assert memory.weights == bytes_of(model.parameters())
    assert memory.gradients == bytes_of(parameter.grad for parameter in trained)
    assert memory.optimizer == bytes_of(
        value for state in optimizer.state.values() for value in state.values()
    )
    half = model_cost.trained_memory(found.parameters, 8, 2, size=2, gpus=2)
    assert 2 * half.total == model_cost.trained_memory(found.parameters, 8, 2, size=2).total


def kept_bytes(model, run):
    """Bytes of storage that autograd keeps of a forward pass, parameters aside."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = run()
    assert output.requires_grad
    return sum(kept.values())


WITHIN = 0.05
"""How far a prediction of activations may be off: small things, such as the statistics of norms, are not counted."""


@pytest.mark.parametrize("make", [neox, neox_in_order, neox_fast_gelu, llama])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lora", [False, True])
def test_activations_of_a_teacher(make, dtype, lora):
    model = make().to(dtype).train()
    stack = model_cost.architecture(model).decoder
    trained = with_lora(model) if lora else model
    found = kept_bytes(
        trained, lambda: model.get_decoder()(input_ids=ids(), use_cache=False).last_hidden_state
    )
    predicted = model_cost.activation_bytes(
        stack, LAYERS, BATCH * LENGTH, dtype.itemsize, RANK if lora else 0, norms=1
    )
    assert predicted == pytest.approx(found, rel=WITHIN)


@pytest.mark.parametrize("lora", [False, True])
def test_activations_of_checkpointed_layers(lora):
    """The layers' inputs are kept; what one layer keeps while it is computed again is the test above, by layer."""
    model = neox().train()
    stack = model_cost.architecture(model).decoder
    trained = with_lora(model) if lora else model
    model.activation_checkpointing_enable({"use_reentrant": False})
    found = kept_bytes(
        trained, lambda: model.get_decoder()(input_ids=ids(), use_cache=False).last_hidden_state
    )
    tokens, rank = BATCH * LENGTH, RANK if lora else 0
    predicted = model_cost.activation_bytes(stack, LAYERS, tokens, 4, rank, norms=1, checkpointed=True)
    assert predicted - tokens * stack.activations(4, rank) == pytest.approx(found, rel=WITHIN)
    assert predicted < 0.4 * model_cost.activation_bytes(stack, LAYERS, tokens, 4, rank, norms=1)


@pytest.mark.parametrize("at_once", [None, 16])
def test_bytes_of_logits(at_once):
    """Log-probabilities of all tokens are kept, or the hidden states from which those of a few at a time are computed."""
    model = neox().train()
    model.get_output_embeddings().requires_grad_(False)  # as with LoRA
    decoder = model.get_decoder()
    below = kept_bytes(model, lambda: decoder(input_ids=ids(), use_cache=False).last_hidden_state)
    found = kept_bytes(model, lambda: TargetLoss(model, at_once)(ids(), ids()))
    tokens = BATCH * (LENGTH - 1)
    assert found - below == pytest.approx(tokens * (64 if at_once else 120) * 4, rel=WITHIN)


@pytest.mark.parametrize("make", [roberta, bart])
@pytest.mark.parametrize("autocast", [False, True])
def test_activations_of_a_student(make, autocast):
    model = make().train()
    found, tokens, size = model_cost.architecture(model), BATCH * LENGTH, 2 if autocast else 4
    run = model.base_model
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        measured = kept_bytes(model, lambda: run(**inputs(model)).last_hidden_state)
    predicted = sum(
        model_cost.activation_bytes(stack, stack.layers, tokens, size, autocast=autocast)
        for stack in (found.encoder, found.decoder)
        if stack
    )
    assert predicted == pytest.approx(measured, rel=WITHIN)


def test_what_is_trained_of_a_student():
    """The embeddings of a classifier never are; an encoder–decoder that was pretrained as one is whole."""
    for frozen in (0, 3):
        chosen = settings.load("paper", ["tasks=[rte, webnlg]", f"students.frozen_layers={frozen}"])
        label, text = (
            planner.stages(task, chosen, planner.device(chosen))[-1] for task in chosen.tasks
        )
        sizes = model_cost.model_of("roberta-large", "classifier")
        assert label.parameters - label.trained == sizes.below + frozen * sizes.encoder.parameters
        assert sizes.below == 50265 * 1024 + 514 * 1024 + 1024 + 2 * 1024
        assert text.trained == text.parameters


def test_activations_of_a_standard_layer_are_those_of_korthikanti():
    stack = model_cost.model_of("roberta-large", "classifier").encoder
    assert stack.activations(size=2) == 34 * 1024


@pytest.mark.parametrize("make", [neox, llama])
def test_bytes_of_the_cache(make):
    model, cache = make().eval(), DynamicCache()
    with torch.no_grad():
        model(input_ids=ids(), past_key_values=cache, use_cache=True)
    found = bytes_of(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert BATCH * LENGTH * model_cost.architecture(model).decoder.cache(size=4) == found


# Plans.


@pytest.fixture(scope="module")
def paper():
    return planner.plan(settings.load("paper"))


def limit(plan):
    return plan.machine.memory * (1 - plan.settings.plan.memory_reserve)


def test_the_paper_fits_and_its_sums_add_up(paper):
    table = paper.table
    assert table["fits"].all() and not paper.advice and (table["memory_total"] <= limit(paper)).all()
    assert set(table["task"]) == set(settings.load("paper").tasks) and len(table) == 6 * 6
    parts = table[[name for name in table if name.startswith("memory_") and name != "memory_total"]].sum(
        axis=1
    )
    assert parts.to_numpy() == pytest.approx(table["memory_total"].to_numpy())
    assert (table["gpu_hours"] * 2.5).to_numpy() == pytest.approx(table["dollars"].to_numpy())
    assert paper.downloads["gpt-neox-20b"] == 2 * 20_554_567_680
    assert paper.settings.teacher.model == "gpt-neox-20b"


def test_more_gpus_take_fewer_hours_and_no_other_money(paper):
    more = planner.plan(settings.load("paper", ["plan.gpus=8", "plan.price=5"]))
    assert more.gpus == 8 and more.table["hours"].sum() < paper.table["hours"].sum() / 3
    assert more.table["gpu_hours"].sum() == pytest.approx(paper.table["gpu_hours"].sum())
    assert more.table["dollars"].sum() == pytest.approx(2 * paper.table["dollars"].sum())


def test_the_smallest_number_of_gpus_and_the_largest_batch_are_just_that():
    chosen = settings.load("paper", ["teacher.method=full", "tasks=[boolq]"])
    machine = planner.device(chosen)
    most = machine.memory * 2**30 * 0.9
    row = planner.stages("boolq", chosen, machine)[0]
    fewest = planner.smallest_gpus(row, most)
    assert fewest > 4  # 16 bytes for each of 20.6·10⁹ parameters
    assert row.memory(row.at(fewest)).total <= most < row.memory(row.at(fewest // 2)).total
    for name in ("batch", "length"):
        shape = row.at(fewest)
        value = planner.largest(row, shape, name, most)
        assert row.memory(planner.replace(shape, **{name: value})).total <= most
        assert row.memory(planner.replace(shape, **{name: value + 1})).total > most


@pytest.mark.parametrize(
    "changes",
    [
        ["plan.gpus=1", "teacher.activations=kept"],
        ["plan.gpus=4", "teacher.method=full"],
        ["plan.gpus=1", "per_task.webnlg.generate.batch_size=512"],
        ["plan.gpus=1", "plan.gpu=L40S 48GB"],
    ],
)
def test_every_change_that_is_advised_makes_the_stage_fit(changes):
    changes = ["tasks=[webnlg]", *changes]
    before = planner.plan(settings.load("paper", changes))
    failing = set(before.table.loc[~before.table["fits"], "stage"])
    assert failing and len(before.advice) >= 1
    for sentence in (each for each in before.advice if "does not fit" in each):
        stage = next(stage for stage in failing if sentence.startswith(f"{stage} (webnlg"))
        advised = sentence.partition("any of ")[2].removesuffix(" would do.").split(", ")
        assert advised != [""]
        for change in advised:
            # per_task settings come after the profile's own, so a change is made there too
            change = [
                part if part.startswith("plan.") else f"per_task.webnlg.{part}"
                for part in change.split(" with ")
            ]
            after = planner.plan(settings.load("paper", [*changes, *change])).table.set_index("stage")
            assert after.loc[stage, "fits"], (stage, change)


def test_where_one_gpu_does_not_hold_the_teacher_it_says_how_to_divide_them():
    small = planner.plan(settings.load("paper", ["plan.gpu=A100 40GB", "generate.engine=vllm"]))
    count = int(small.table.loc[small.table["stage"].isin(planner.ANSWERING), "gpus_needed"].max())
    assert count > 1 and f"takes {count} GPUs" in small.advice[-1] and "generate.engine=batches" in small.advice[-1]
    batches = planner.plan(settings.load("paper", ["plan.gpu=A100 40GB"]))
    assert "engine" not in batches.advice[-1]


def test_sharding_needs_less_memory_on_each_gpu_and_costs_time(paper):
    small = planner.plan(settings.load("paper", ["plan.gpu=A100 40GB"]))
    tuned = small.table[small.table["stage"] == "fine-tune, annotate"]
    assert (tuned["gpus_used"] > 1).all() and (tuned["memory_gathered"] > 0).all()
    mine = paper.table[paper.table["stage"] == "fine-tune, annotate"]
    assert (tuned["memory_weights"].to_numpy() < mine["memory_weights"].to_numpy()).all()
    assert (tuned["gpu_hours"].to_numpy() > mine["gpu_hours"].to_numpy()).all()


def test_logits_of_checkpointed_activations_do_not_grow_with_the_vocabulary_times_the_batch():
    chosen = settings.load("paper", ["tasks=[webnlg]", "teacher.activations=checkpointed"])
    row = planner.stages("webnlg", chosen, planner.device(chosen))[1]
    assert row.name == "fine-tune, generate"
    kept, checkpointed = (row.memory(planner.replace(row.shape, activations=way, batch=64)).logits
                          for way in ("kept", "checkpointed"))
    predicted = 64 * row.shape.length
    assert kept == 12 * 50432 * predicted
    assert checkpointed == 12 * 50432 * model_cost.LOGITS_AT_ONCE + 2 * 6144 * predicted < kept / 5


def test_training_on_several_gpus_takes_no_less_than_sending_the_weights(monkeypatch):
    monkeypatch.setattr(stage_cost, "DISK_RATE", 1e15)
    chosen = settings.load("paper", ["tasks=[rte]"])
    machine = planner.device(chosen)
    fast, slow = (
        planner.stages("rte", chosen, planner.replace(machine, link=link))[0] for link in (1e9, 1)
    )
    assert fast.seconds(1) == slow.seconds(1) == pytest.approx(8 * fast.seconds(8), rel=1e-3)
    steps = 5 * sum(-(-budget // 16) for budget in chosen.for_task("rte").budgets)
    assert slow.seconds(8) == pytest.approx(steps * 2 * 2 * 20.62 * 7 / 8, rel=0.02)


ENDPOINT = ["endpoint={name: my-llm, base_url: 'http://127.0.0.1:9/v1', model: some-model, shots: [5]}",
            "endpoint.input_price=1", "endpoint.output_price=2", "tasks=[tweets, sgd]", "budgets=[125, 250]"]


def test_what_an_endpoint_does_takes_its_money_and_no_hours_here():
    sources = {"annotate": "annotate.source=endpoint", "generate": "generate.source=endpoint"}
    asked = {sources: planner.plan(settings.load("laptop", [*ENDPOINT, *sources])).table.set_index(["stage", "task"])
             for sources in ((), tuple(sources.values())[:1], tuple(sources.values())[1:], tuple(sources.values()))}
    none, annotates, generates, both = asked.values()
    assert not none.loc[["annotate", "generate"], "requests"].any() and none.loc["evaluate", "requests"].all()
    assert not annotates.loc["annotate", "gpu_hours"].any() and not both.loc[["annotate", "generate"], "gpu_hours"].any()
    assert (annotates.loc["generate", "gpu_hours"] < none.loc["generate", "gpu_hours"]).all()  # it labels the pairs
    assert (generates.loc["generate", "gpu_hours"] < none.loc["generate", "gpu_hours"]).all() and generates.loc["generate", "flops"].all()
    assert (generates.loc["annotate", "gpu_hours"] == none.loc["annotate", "gpu_hours"]).all()
    chosen = settings.load("laptop", ENDPOINT).for_task("tweets")
    inputs = sum(min(chosen.annotate.inputs or chosen.pool_size, chosen.pool_size - budget) for budget in chosen.budgets)
    assert both.loc[("annotate", "tweets"), "requests"] == inputs
    assert both.loc[("annotate", "tweets"), "tokens_received"] <= inputs * 64
    paid = (both["tokens_sent"] + 2 * both["tokens_received"]) / 1e6
    assert both["endpoint_dollars"].to_numpy() == pytest.approx(paid.to_numpy()) and (both["dollars"] >= paid).all()


def test_the_plan_says_what_an_endpoint_is_asked():
    plan = planner.plan(settings.load("laptop", [*ENDPOINT, "annotate.source=endpoint", "generate.source=endpoint"]))
    sums = plan.table[["requests", "endpoint_dollars"]].sum()
    said = " ".join(plan.text().split())
    assert f"Endpoint my-llm: {sums['requests']:,.0f} requests (evaluate " in said
    assert f"written, at most ${sums['endpoint_dollars']:,.2f}." in said
    assert "some-model" not in plan.downloads and max(map(len, plan.text().splitlines())) <= 100
    free = planner.plan(settings.load("laptop", [*ENDPOINT[:1], "tasks=[tweets]", "annotate.source=endpoint"]))
    assert "Endpoint my-llm" in free.text() and "written." in free.text()


def test_a_student_that_cannot_generate_text_is_refused_in_the_plan_as_it_is_later(monkeypatch):
    chosen = settings.load("laptop", ["tasks=[sgd]", "students.model=roberta-large"])
    with pytest.raises(AssetError, match="roberta-large .roberta. does not write texts") as planned:
        planner.plan(chosen)
    monkeypatch.setattr(student.assets, "model_path", lambda name: name)
    monkeypatch.setattr(student.AutoConfig, "from_pretrained", lambda name: RobertaConfig())
    with pytest.raises(AssetError) as later:
        student.trainer(SimpleNamespace(settings=chosen, task=SimpleNamespace(task_type="generation", name="sgd")))
    assert str(planned.value) == str(later.value)
    assert planner.plan(settings.load("laptop", ["tasks=[tweets]", "students.model=roberta-large"])).table["fits"].all()


@pytest.mark.parametrize("profile", settings.profiles())
def test_every_profile_can_be_planned(profile):
    plan = planner.plan(settings.load(profile))
    assert plan.table["fits"].all() and (plan.table[["tokens", "flops", "hours"]] > 0).all().all()
    assert max(map(len, plan.text().splitlines())) <= 100
    assert set(plan.table["task"]) <= set(SPECS)


def test_a_plan_loads_no_weights_and_asks_no_network(tmp_path, capsys):
    opened, listening = [], True

    def hook(event, arguments):
        if listening and (event == "open" or event.startswith("socket.")):
            opened.append((event, str(arguments[0])))

    sys.addaudithook(hook)
    model_cost.model_of.cache_clear()
    try:
        assert reproduce.main(["--profile", "paper", "--plan", "--set", f"run_dir={tmp_path}"]) == 0
    finally:
        listening = False
    assert not [event for event, _ in opened if event != "open"]
    assert not [
        path for _, path in opened if path.endswith((".safetensors", ".bin", ".gguf", ".pt", ".parquet"))
    ]
    assert any(path.endswith("plan.csv") for _, path in opened)


# The command.


def test_the_command_prints_a_table_and_writes_it(tmp_path, capsys):
    command = ["--profile", "paper", "--plan", "--gpu", "A100 80GB", "--gpus", "8", "--price", "1.5"]
    assert reproduce.main([*command, "--only", "rte", "--set", f"run_dir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "8 × A100 80GB" in said and "$1.50 an hour" in said and "roberta-large" in said
    assert max(map(len, said.splitlines()[:-1])) <= 100
    table = pd.read_csv(tmp_path / "plan.csv")
    summary = json.loads((tmp_path / "plan.json").read_text())
    assert list(table["task"].unique()) == ["rte"]
    assert summary["total"]["dollars"] == pytest.approx(table["dollars"].sum())
    assert summary["gpus"] == 8 and summary["assumptions"]["mfu"] == 0.35


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plan", "--gpu", "H100 80 GB"], "did you mean 'H100 80GB'"),
        (["--plan", "--gpus", "0"], "plan.gpus"),
        (["--plan", "--gpus", "many"], "plan.gpus"),
        (["--plan", "--price", "-1"], "plan.price"),
        (["--plan", "--set", "teacher.model=gpt-neox-20"], "did you mean 'gpt-neox-20b'"),
        (["--gpu", "H100 80GB"], "add --plan"),
        (["--set", "data_root=null"], "rte is read from its official files"),
    ],
)
def test_wrong_use_ends_with_one_sentence(arguments, said, tmp_path, capsys):
    status = reproduce.main(["--profile", "paper", "--set", f"run_dir={tmp_path}", *arguments])
    error = capsys.readouterr().err
    assert status == 2 and said in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_misspelt_model_is_told_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'roberta-large'"):
        model_cost.model_of("roberta_large", "classifier")
