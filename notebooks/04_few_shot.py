# %% [markdown]
# # Five examples, and some of them are lies
#
# People need a few examples to learn what a new sign means. A network needs thousands, unless it
# has learned to learn: **meta-learning** looks for a beginning from which a handful of gradient
# steps is enough. But with five examples of each class every one counts, and if somebody has mixed
# up a few labels there is nothing to average the mistakes away.
#
# Here a network learns to learn, on tasks with wrong labels, and beside it a second network learns
# which examples of a task to believe: a **commentary**. Nobody tells it which labels are wrong, in
# training or afterwards. It learns only from how well the first network does on other images of the
# same task. The notebook needs nothing but an installed `commentaries`, runs on one core in a
# minute or two, and every number in it is computed below.

# %%
# %matplotlib inline
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display
from torch import nn

from commentaries import ExampleWeights, Student
from commentaries.data import load
from commentaries.fewshot import (
    MAML,
    Episodes,
    FasterCommentary,
    MeanWeights,
    SupportLosses,
    evaluate,
    meta_train,
    start,
)
from commentaries.inner import SGD, Adam
from commentaries.networks import small_cnn
from commentaries.report import markdown_table
from commentaries.report.few_shot_page import accuracy_by_step
from commentaries.report.figures import BLUE, GREY, INK, VERMILION, label_axes
from commentaries.teaching.few_shot import summary
from commentaries.training import Examples, Recipe, fit

torch.set_num_threads(1)  # fastest for networks this small

WAY, SHOT, QUERY = 3, 5, 10
TESTED = 150  # tasks


def say(text):
    """Shows a sentence with computed numbers in it."""
    display(Markdown(text))


# %% [markdown]
# ## Tasks
#
# The images are scikit-learn's handwritten digits. The digits 0 to 5 are there to learn from; 6 to
# 9 are kept apart, and nothing sees them before the end. A **task** takes three digits and calls
# them A, B and C, in an order drawn anew. It comes with five labelled examples of each, the
# *support set*, and asks for ten others of each, the *queries*.

# %%
digits = load("digits")
known = digits.y < 6


def tasks(which, wrong=0.0):
    """Tasks of some of the digits, with a share of wrong labels in the support sets."""
    x, y = digits.x[which], digits.y[which]
    return Episodes(x, y, way=WAY, shot=SHOT, query=QUERY, wrong=wrong)


def show(episode, titles=None):
    """The support set by the digits that it really shows; a frame around what is mislabelled."""
    _, grid = plt.subplots(
        WAY, SHOT, figsize=(5.2, 3.8), dpi=120, layout="constrained", squeeze=False
    )
    for at, axes in enumerate(grid.flat):
        wrong = bool(episode.wrong[at])
        axes.imshow(episode.support.x[at, 0], cmap="gray", vmin=0, vmax=1)
        name = "ABC"[episode.support.y[at]]
        text = f"“{name}”" if titles is None else f"“{name}”  {titles[at]}"
        axes.set_title(text, fontsize=9.5, pad=4, color=VERMILION if wrong else INK)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=wrong, color=VERMILION, linewidth=2.5)
    plt.show()


WRONG = 0.3
show(tasks(known, WRONG)(0))

# %%
say(
    f"One task out of many: its support set, row by row what the images really show, with the "
    f"labels that a student is given. {round(WRONG * WAY * SHOT)} of the {WAY * SHOT} labels are "
    f"wrong. There are {int(known.sum()):,} images of digits to learn from and "
    f"{int((~known).sum())} of those that are kept apart."
)

# %% [markdown]
# ## A beginning
#
# First an ordinary network learns to tell the six known digits apart. Its last layer is of no use
# for new digits, but the features below it are: they serve as the beginning of everything that
# follows, and later as eyes for the commentary.

# %%
x, y = digits.x[known], digits.y[known]
ordinary = Student(lambda: small_cnn(6))
recipe = Recipe(steps=1, passes=20, batch=64, lr=0.1, weight_decay=5e-4)
theta = fit(ordinary, Examples(x, y, torch.ones(len(y))), recipe, seed=0)
network = ordinary.module()
network.load_state_dict(theta)
features = nn.Sequential(*list(network)[:-1]).requires_grad_(False)
say(
    f"It is right on {(network(x).argmax(1) == y).double().mean():.1%} of what it has learned from."
)

# %% [markdown]
# ## Learning to learn
#
# MAML (Finn, Abbeel and Levine 2017) takes a task, lets the student make five gradient steps on the
# support set, and asks for the queries. Then it moves the *beginning* so that those same five steps
# would have ended better: the gradient goes backwards through the steps. Here it also learns how
# long each step should be, for each layer.
#
# How well does a student do on digits it has never seen: from the ordinary features, with what MAML
# has made of them on tasks with right labels, and when a share of the labels is wrong?

# %%
STEPS = 5


def learner(commentary=None, learn_rates=True):
    student = Student(lambda: small_cnn(WAY))
    return MAML(student, SGD(0.3), steps=STEPS, commentary=commentary, learn_rates=learn_rates)


def begin(maml, outer):
    """The state before the first meta-step: ordinary features and a last layer drawn anew."""
    state = start(maml, outer)
    own = {f"start.{name}": value for name, value in theta.items()}
    phi = {k: own[k] if k in own and own[k].shape == v.shape else v for k, v in state.phi.items()}
    return state._replace(phi=phi)


def learn(maml, wrong, steps=200):
    """What is learned on tasks of the known digits with a share of wrong labels."""
    outer = FasterCommentary(Adam(2e-3))
    state = begin(maml, outer)
    learning = meta_train(
        maml, state, outer_optimizer=outer, episodes=tasks(known, wrong), steps=steps
    )
    for step in learning:
        state = step.state
    return state.phi


def examined(maml, phi, wrong, count=TESTED):
    """Adaptation to tasks of the digits that were kept apart."""
    return evaluate(maml, phi, tasks(~known, wrong), first=100_000, count=count)


def last(found):
    return f"{found.mean[-1]:.1%} ± {found.interval[-1]:.1%}"


maml = learner()
untaught = begin(maml, Adam(1e-3)).phi
on_right = learn(maml, wrong=0.0)
on_wrong = learn(maml, wrong=WRONG)
starts = {
    "ordinary features": untaught,
    "MAML on right labels": on_right,
    "MAML on wrong labels": on_wrong,
}
rows = [
    [name, *(last(examined(maml, phi, wrong)) for wrong in (0.0, WRONG))]
    for name, phi in starts.items()
]
display(Markdown(markdown_table(["begins with", "all labels right", f"{WRONG:.0%} wrong"], rows)))

# %% [markdown]
# Right answers of students after five steps, with 95 % intervals over the tasks; guessing gives a
# third. Learning on tasks like those of the test helps, but wrong labels remain expensive.
#
# ## Whom to believe
#
# Which of the examples are mislabelled? Their labels alone say nothing, since A, B and C mean
# something else in each task. But a wrong label does not fit the rest: the image looks more like
# those of another label, and the student finds it hard to learn. The commentary `SupportLosses`
# sees just that of each example, as four numbers: its loss compared with the others', and how well
# it fits its label in the features, and the step. A tiny network turns these into a weight. It
# begins by believing everybody, and is learned together with the beginning, by the same gradient.

# %%
weights = ExampleWeights(SupportLosses(features))
weighing = learner(weights)
phi = learn(weighing, WRONG)
size = sum(value.numel() for name, value in phi.items() if name.startswith("teacher."))

equally = replace(weighing, commentary=MeanWeights(weights))
found = {
    "with weights": examined(weighing, phi, WRONG),
    "the same, equal weights": examined(equally, phi, WRONG),
    "MAML on wrong labels": examined(maml, on_wrong, WRONG),
}
ours, equal, without = found.values()
say(
    f"The commentary has {size} parameters. With its weights **{last(ours)}** of the queries are "
    f"right after {STEPS} steps, against {last(without)} of MAML that learned without a commentary "
    "in as many steps on the same tasks."
)
accuracy_by_step({name: summary(each) for name, each in found.items()})

# %% [markdown]
# **Is it the weights?** They might merely have helped to find a better beginning, or better step
# sizes. So the middle curve has the same beginning and the same steps, but every example counts the
# same again.

# %%
apart = ours.accuracy[:, -1] - equal.accuracy[:, -1]
half = 1.96 * apart.std() / len(apart) ** 0.5
clean, wrong = float(ours.clean_weight[-1]), float(ours.wrong_weight[-1])
say(
    f"Task by task, taking the weights away costs {apart.mean():.1%} ± {half:.1%}. In the last "
    f"step an example with a right label weighs {clean:.2f} on average, one with a wrong label "
    f"**{wrong:.2f}**; without a commentary both weigh 1."
)

# %% [markdown]
# Here is one of the test tasks, with the weights of its last step. The digits are new to all
# networks involved. A framed example is mislabelled; the commentary does not know.

# %%
tested = tasks(~known, WRONG)
number = 100_000
show(tested(number), [f"{value:.2f}" for value in ours.weights[0, -1]])

# %%
given, bad = ours.weights[:, -1].flatten(), ours.wrong.flatten()
below = (given[bad][:, None] < given[~bad]).double().mean()
say(
    f"Over all {len(ours.wrong)} tasks a wrong example weighs less than a right one in "
    f"**{below:.0%}** of all pairs. Some wrong ones are believed all the same, and some right ones "
    "are not: a seven that looks like a nine has the features of a nine, whatever its label says."
)

# %% [markdown]
# ## Where it ends
#
# The commentary knows one thing: labels that agree with one another are probably right. If most
# labels are wrong that is no longer so. And it has learned how many lies to expect. So here are the
# same learned networks on tasks with fewer and with more wrong labels, beside a commentary that has
# learned on tasks of all kinds, from none to almost half of the labels wrong.

# %%
shares = (0.0, 0.2, 0.4, 0.6)
MIXED = "weights, learned on 0 to 45% wrong"
learned = {
    f"weights, learned on {WRONG:.0%} wrong": (weighing, phi, BLUE),
    MIXED: (weighing, learn(weighing, (0.0, 0.45)), INK),
    f"MAML on {WRONG:.0%} wrong": (maml, on_wrong, GREY),
}
figure, axes = plt.subplots(figsize=(6, 3.2), dpi=120, layout="constrained")
curves = {}
for name, (model, value, colour) in learned.items():
    each = [examined(model, value, share, count=60) for share in shares]
    mean = torch.tensor([float(one.mean[-1]) for one in each])
    half = torch.tensor([float(one.interval[-1]) for one in each])
    curves[name] = mean
    axes.plot(shares, mean, "-o", color=colour, markersize=4, label=name)
    axes.fill_between(shares, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
axes.axhline(1 / WAY, color=VERMILION, linestyle="--", linewidth=1, label="guessing")
axes.legend(frameon=False, fontsize=9, loc="upper right")
label_axes(axes, x="share of wrong support labels", y="accuracy")
plt.show()

# %%
plain = curves[f"MAML on {WRONG:.0%} wrong"]


def worth(name):
    ahead = zip(shares, curves[name] - plain, strict=True)
    return ", ".join(f"{value:+.1%} at {share:.0%}" for share, value in ahead)


fixed, mixed = (worth(name) for name in curves if name.startswith("weights"))
say(
    f"Learned on tasks with always as many wrong labels, the weights are worth {fixed}: where "
    "every label is right a commentary that grew up among lies still finds someone to distrust, "
    "and five examples are too few to give any away. Learned on tasks of all kinds they are worth "
    f"{mixed}. Where most labels are wrong, following the labels is no better than guessing, with "
    "weights or without."
)

# %% [markdown]
# Two more limits. With a single example of each class nothing can be compared, and the command
# below refuses. And this is one meta-training of each kind, on a small set: the intervals are over
# tasks and say nothing of other seeds. The table of `experiments/README.md` has three seeds on
# colour photographs, with the same controls.
#
# ## The same in one command
#
# ```text
# commentaries learn fewshot --data cifar_fs --shot 5 --wrong 0.4 --pretrain 10 \
#     --learn-rates --commentary agreement
# ```
#
# With `--train-wrong 0 0.45` the tasks to learn from are of all kinds, as in the last figure. The
# command takes Omniglot, CIFAR-FS or folders of your own, and writes a page with the accuracy after
# each step and the weights.
