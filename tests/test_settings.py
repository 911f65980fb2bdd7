"""Settings: what can be changed, what is refused and in which words, and what each stage depends on."""

import pytest
from synthtune import settings
from synthtune.errors import SettingsError


def refused(*arguments, **options):
    """The one sentence with which settings are refused."""
    with pytest.raises(SettingsError) as caught:
        settings.load(*arguments, **options)
    [sentence] = str(caught.value).splitlines()
    return sentence


@pytest.mark.parametrize("profile", settings.profiles())
def test_every_profile_can_run_all_of_its_tasks_and_budgets(profile):
    chosen = settings.load(profile)
    assert chosen.profile == profile and chosen.folder.parts[-2:] == ("runs", profile)
    for task in chosen.tasks:
        for budget in chosen.budgets:
            assert chosen.check(task, budget).objectives(budget)[0] == "annotate"


@pytest.mark.parametrize("task", settings.PUBLIC)
def test_public_tasks_say_where_their_files_can_come_from(task):
    with pytest.raises(SettingsError, match=f"data_root: {task} is read from its official files; .*--data-root official"):
        settings.load("laptop").check(task)
    assert settings.load("laptop", ["data_root=official"]).check(task).data_root == settings.official_corpora()


def test_budgets_are_of_the_whole_run():
    with pytest.raises(SettingsError, match="per_task.rte: budgets are the same for all tasks of a run"):
        settings.load("paper", ["per_task.rte.budgets=[125]"])


@pytest.mark.parametrize(("epochs", "larger", "each"), [(3, 1, [3, 2, 1, 1]), (4, 2, [4, 2, 2, 2]), (3, 3, [3, 3, 3, 3])])
def test_a_teacher_of_more_examples_takes_no_fewer_steps(epochs, larger, each):
    chosen = settings.load("laptop", {"budgets": [125, 250, 500, 1250], "teacher.epochs": epochs, "teacher.epochs_larger": larger})
    assert [chosen.epochs(budget, "annotate") for budget in chosen.budgets] == each


def test_the_generating_teacher_may_take_passes_of_its_own():
    chosen = settings.load("laptop", {"budgets": [125, 250], "teacher.epochs": 8, "teacher.epochs_larger": 1})
    assert chosen.epochs(125, "generate") == 8
    chosen = settings.load("laptop", {"budgets": [125, 250], "teacher.epochs": 8, "teacher.epochs_larger": 1, "teacher.epochs_generate": 4})
    assert [chosen.epochs(budget, "generate") for budget in (125, 250)] == [4, 2] and chosen.epochs(125, "annotate") == 8


def test_the_laptop_profile_is_the_study_of_the_paper():
    laptop = settings.load("laptop")
    assert sorted(laptop.tasks) == sorted(settings.TASKS)
    assert laptop.budgets[0] == 125 and len(laptop.budgets) >= 2 and laptop.pool_size == 2500
    assert laptop.test_size >= 500 and len(laptop.for_task("tweets").students.seeds) >= 3
    assert {"smoke", "laptop"} <= set(settings.profiles())


def test_another_engine_needs_the_whole_vocabulary():
    assert "set teacher.vocabulary=null" in refused("laptop", ["generate.engine=vllm"])
    settings.load("laptop", ["generate.engine=vllm", "teacher.vocabulary=null"])


@pytest.mark.parametrize(("profile", "named"), [
    ("labtop", "'laptop'"), ("Smoke", "'smoke'"), (7, "7"), ("../profiles/smoke", "smoke"), (None, "None")])
def test_unknown_profile(profile, named):
    sentence = refused(profile)
    assert sentence.startswith("profile: ") and named in sentence


@pytest.mark.parametrize(("override", "named"), [
    ("teacher.epoch=6", "'teacher.epochs'"),
    ("teecher.epochs=6", "'teacher.epochs'"),
    ("budget=[125]", "'budgets'"),
    ("students.seed=[1]", "'students.seeds'"),
    ("per_task.tweets.teacher.epoch=6", "'teacher.epochs'"),
])
def test_unknown_setting_names_the_nearest(override, named):
    sentence = refused("smoke", [override])
    assert "unknown setting" in sentence and f"did you mean {named}" in sentence


@pytest.mark.parametrize("task", ["film_review", "tweet", "Reuters_r8"])
def test_unkncustom_task_names_the_nearest(task):
    chosen = settings.load("smoke")
    with pytest.raises(SettingsError, match="did you mean '(film_reviews|tweets|reuters_r8)'"):
        chosen.check(task)
    assert "tasks" in refused("smoke", {"tasks": [task]})
    assert task in refused("smoke", [f"per_task.{task}.teacher.epochs=3"])


@pytest.mark.parametrize("budget", ["abc", "125", True, 12.5, None.__class__, [125]])
def test_budget_of_the_wrong_type(budget):
    with pytest.raises(SettingsError, match="budget: .* is not a whole number; give one such as 32"):
        settings.load("smoke").check("tweets", budget)


@pytest.mark.parametrize("budget", [0, -5, 301])
def test_budget_that_the_pool_cannot_give(budget):
    with pytest.raises(SettingsError, match=rf"budget: {budget} .*pool of tweets has at most 300.* from 1 to 300"):
        settings.load("smoke").check("tweets", budget)


@pytest.mark.parametrize("budgets", [[9000], [250, 125], [125, 125], [0], [], "abc", 125, ["a"], None])
def test_budgets_that_cannot_be_run(budgets):
    assert "budgets" in refused("smoke", {"budgets": budgets})


@pytest.mark.parametrize(("override", "named"), [
    ("teacher.epochs=many", "teacher.epochs"),
    ("teacher.epochs=0", "teacher.epochs"),
    ("teacher.epochs=2.5", "teacher.epochs"),
    ("teacher.epochs=true", "teacher.epochs"),
    ("teacher.epochs=", "teacher.epochs"),
    ("teacher=3", "teacher"),
    ("teacher.epochs", "no '='"),
    ("teacher.epochs=[1", "teacher.epochs"),
    ("generate.top_p=1.5", "generate.top_p"),
    ("generate.labels=filter", "generate.labels"),
    ("seed=x", "seed"),
    ("per_task.tweets=3", "per_task.tweets"),
])
def test_values_of_the_wrong_type(override, named):
    sentence = refused("smoke", [override])
    assert named in sentence and "pydantic" not in sentence


@pytest.mark.parametrize("overrides", [5, True, {"teacher.epochs"}, ["teacher.epochs"], [3]])
def test_overrides_that_are_no_list_of_changes(overrides):
    assert "overrides: " in refused("smoke", overrides)


def test_a_wrong_value_for_one_task_is_found_when_the_profile_is_read():
    assert "teacher.epochs" in refused("smoke", {"per_task": {"sgd": {"teacher.epochs": "many"}}})


def test_overrides_are_read_as_yaml(tmp_path):
    texts = ["teacher.epochs=6", "generate.top_p=.5", "students.seeds=[4, 5]", " tasks = [sgd]",
             f"data_root={tmp_path}", "endpoint={name: a=b, base_url: http://127.0.0.1:1/v1, model: m}"]
    chosen = settings.load("smoke", texts)
    assert chosen.teacher.epochs == 6 and chosen.generate.top_p == 0.5 and chosen.students.seeds == [4, 5]
    assert chosen.tasks == ["sgd"] and chosen.data_root == tmp_path
    assert chosen.endpoint.name == "a=b" and chosen.endpoint.shots == [0, 5]
    assert chosen.teacher.batch_size == settings.load("smoke").teacher.batch_size
    assert settings.load("smoke", "teacher.epochs=6").teacher.epochs == 6
    assert settings.load("smoke", {"teacher.epochs": 6}) == settings.load("smoke", ["teacher.epochs=6"])
    assert settings.load("smoke", "", "", "") == settings.load("smoke", None) == settings.load("smoke", [])


def test_a_folder_given_with_a_tilde_or_a_relative_path_is_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings.load("smoke", run_dir="here").folder == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.load("smoke", run_dir="~/there").folder == tmp_path / "there"


def test_settings_of_one_task():
    chosen = settings.load("smoke", ["per_task.tweets.teacher.epochs=9", "per_task.tweets.seed=3", "teacher.epochs=4"])
    assert chosen.check("tweets", 32).teacher.epochs == 9 and chosen.for_task("tweets").seed == 3
    assert chosen.check("sgd").teacher.epochs == 4 and chosen.for_task("tweets").for_task("tweets").seed == 3


def test_settings_cannot_be_changed_by_accident():
    with pytest.raises(Exception, match="frozen"):
        settings.load("smoke").teacher.epochs = 5


STAGES = ("teacher", "annotate", "generate", "students")


@pytest.mark.parametrize(("override", "changed"), [
    ("students.steps=7", {"students"}),
    ("generate.temperature=0.7", {"generate", "students"}),
    ("annotate.inputs=30", {"annotate", "generate", "students"}),
    ("teacher.epochs=7", set(STAGES)),
    ("pool_size=200", set(STAGES)),
    ("per_task.tweets.students.steps=7", {"students"}),
    ("per_task.sgd.teacher.epochs=7", set()),
    ("budgets=[32, 128]", {"students"}),
    # The smallest budget decides how the pool is ordered, and how many epochs a teacher gets.
    ("budgets=[64]", set(STAGES)),
    ("figures.resamples=300", set()),
    ("plan.gpus=3", set()),
    ("jobs=1", set()),
])
def test_a_stage_depends_on_its_own_settings_and_on_those_before_it(override, changed):
    before, after = settings.load("smoke"), settings.load("smoke", [override])
    found = {stage for stage in STAGES
             if before.stage_digest(stage, "tweets", 64) != after.stage_digest(stage, "tweets", 64)}
    assert found == changed
    moves = not override.startswith(("jobs", "plan"))
    assert (before.for_stage("figures") != after.for_stage("figures")) == moves


def test_where_a_run_is_kept_does_not_change_what_it_is(tmp_path):
    here, there = settings.load("smoke"), settings.load("smoke", run_dir=tmp_path)
    for stage in STAGES:
        assert here.stage_digest(stage, "sgd", 32) == there.stage_digest(stage, "sgd", 32)
    assert here.for_stage("figures") == there.for_stage("figures")
