# %% [markdown]
# # Which labels can be trusted?
#
# Somebody has labelled a set of digits and made mistakes, always the same kind: every now and then
# the *next* digit was written down. A few of the images have been checked by a second person.
# Which of the remaining labels should a network believe?
#
# This notebook answers with a **commentary**: one weight for each training example, learned by
# asking what each example does to the network's result on the checked ones. It needs nothing but
# an installed `commentaries`, runs on one core within a minute or so, and every number in it is
# computed below.

# %%
import csv
import json
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from sklearn.metrics import roc_auc_score
from torch import nn

from commentaries import Batch, Bilevel, ExampleWeights, Student, taught, train
from commentaries.commentary import Table, judged
from commentaries.data import corrupt, load, split
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SGD, Adam
from commentaries.report import markdown_table, mean_interval, method_comparison
from commentaries.report.figures import BLUE, GREY, INK, VERMILION, weights_over_training
from commentaries.solvers import ConjugateGradient, Neumann
from commentaries.training import Examples, Recipe, Schedule, fit, log_probabilities, start

torch.set_num_threads(1)  # fastest for networks this small


def say(text):
    """Shows a sentence with computed numbers in it."""
    display(Markdown(text))


# %% [markdown]
# ## Wrong labels
#
# The images are scikit-learn's handwritten digits, which come with it. We make the mistakes
# ourselves, so that we can tell afterwards who found them; `wrong` is for looking and for scoring,
# and no method sees it.


# %%
def make(seed):
    """Training examples with wrong labels, a few trusted examples, and test examples."""
    digits = load("digits")
    rows = split(digits.y, train=1300, trusted=100, test=397, seed=seed)
    x, truth = digits.x[rows.train], digits.y[rows.train]
    given = corrupt(x, truth, noise="pair", rate=0.4, classes=digits.classes, seed=seed)
    trusted, test = digits.rows(rows.trusted), digits.rows(rows.test)
    return SimpleNamespace(x=x, given=given, wrong=given != truth, trusted=trusted, test=test)


data = make(seed=0)
say(
    f"Of {len(data.x):,} training labels **{int(data.wrong.sum())}** are wrong "
    f"({data.wrong.float().mean():.0%}). {len(data.trusted)} other examples are trusted, and "
    f"{len(data.test)} more are kept for testing."
)


# %%
def show(axes, row):
    """One image with its given label, red where that is wrong."""
    axes.imshow(data.x[row, 0], cmap="gray_r")
    colour = VERMILION if data.wrong[row] else INK
    axes.set_title(f"“{data.given[row]}”", fontsize=10, color=colour, pad=4)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=colour, linewidth=1.6 if data.wrong[row] else 0.6)


figure, grid = plt.subplots(2, 12, figsize=(9.6, 2.1), dpi=120, layout="constrained")
for row, axes in enumerate(grid.flat):
    show(axes, 50 * row)
figure.suptitle("Some training examples and the labels that they were given", fontsize=10.5)
plt.show()

# %% [markdown]
# ## An ordinary student learns the mistakes too
#
# A **student** is the network that we want to train; here it has one hidden layer. It is trained on
# all labels alike, with nothing to hold it back. First it finds what most labels of a digit say;
# then it learns the mistakes by heart.

# %%
student = Student(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)))


def predict(data, theta, x):
    return log_probabilities(student, theta, x, seen=data.x).argmax(dim=1)


def accuracy(data, theta):
    return float((predict(data, theta, data.test.x) == data.test.y).float().mean())


curve = []


def watch(step, theta):
    repeats = predict(data, theta, data.x)[data.wrong] == data.given[data.wrong]
    curve.append((step, accuracy(data, theta), float(repeats.float().mean())))


everything = Examples(data.x, data.given, torch.ones(len(data.x)))
fit(student, everything, Recipe(steps=800, lr=0.5, weight_decay=0.0), seed=0, watch=watch)

steps, right, repeated = np.array(curve).T
figure, axes = plt.subplots(figsize=(7.2, 2.8), dpi=120, layout="constrained")
for values, text, colour in (
    (right, "test images\nclassified rightly", BLUE),
    (repeated, "wrong labels\nlearned by heart", VERMILION),
):
    axes.plot(steps, 100 * values, color=colour, linewidth=1.8)
    axes.annotate(
        text, (steps[-1], 100 * values[-1]), (8, 0), textcoords="offset points",
        color=colour, fontsize=9.5, va="center", annotation_clip=False,
    )  # fmt: skip
axes.set(xlabel="training step", ylabel="%", ylim=(0, 100), xlim=(0, steps[-1]))
axes.spines[["top", "right"]].set_visible(False)
plt.show()

say(
    f"At its best the student was right on **{right.max():.1%}** of the test images; at the end it "
    f"is right on **{right[-1]:.1%}** and repeats **{repeated[-1]:.0%}** of the wrong labels."
)

# %% [markdown]
# ## A commentary, and an exam
#
# Suppose every training example came with a weight between zero and one, and the student listened
# to each label as much as its weight says. Good weights would be small where the label is wrong.
# Nobody tells us these weights. But the trusted examples make an **exam**: weights are good if a
# student that was taught with them does well in it.

# %%
figure, axes = plt.subplots(figsize=(8.6, 2.5), dpi=120, layout="constrained")
boxes = {  # name: (left, bottom, text, colour)
    "examples": (0.0, 0.0, "training examples\nsome labels are wrong", "#666666"),
    "commentary": (0.0, 1.5, "commentary φ\none weight per example", BLUE),
    "student": (3.7, 0.0, "student θ\ntrained on weighted losses", INK),
    "exam": (7.4, 0.0, "exam\nloss on trusted examples", VERMILION),
}
for left, bottom, text, colour in boxes.values():
    shape = FancyBboxPatch(
        (left, bottom), 2.6, 0.8, boxstyle="round,pad=0.08", fc="white", ec=colour
    )
    axes.add_patch(shape).set_linewidth(1.6)
    axes.text(left + 1.3, bottom + 0.4, text, ha="center", va="center", fontsize=9.5, color=colour)
for begin, end, colour, bend, line in (
    ((2.7, 0.4), (3.6, 0.4), "#666666", 0, "-"),
    ((2.7, 1.7), (4.4, 0.9), BLUE, 0, "-"),
    ((6.4, 0.4), (7.3, 0.4), INK, 0, "-"),
    ((8.7, 0.9), (2.7, 2.1), VERMILION, 0.25, "--"),
):
    style = {"arrowstyle": "-|>", "mutation_scale": 13, "linewidth": 1.5, "linestyle": line}
    axes.add_patch(
        FancyArrowPatch(begin, end, color=colour, connectionstyle=f"arc3,rad={bend}", **style)
    )
axes.text(6.6, 2.45, "hypergradient: which weights would have helped?", ha="center",
          fontsize=9.5, color=VERMILION)  # fmt: skip
axes.set(xlim=(-0.2, 10.2), ylim=(-0.2, 2.7))
axes.axis("off")
plt.show()

# %% [markdown]
# In symbols, with $w_i$ the weight of example $i$ and $\ell_i$ the student's loss on it:
#
# $$\min_\phi\; L_{\text{exam}}\bigl(\theta^*(\phi)\bigr)
# \qquad\text{where}\qquad
# \theta^*(\phi) = \arg\min_\theta \sum_i w_i(\phi)\,\ell_i(\theta).$$
#
# One problem inside another: a *bilevel* problem. To improve the weights we need the derivative of
# the exam's loss **through the training of the student**, the hypergradient. The implicit function
# theorem gives it without storing how the student was trained. Where training has come to rest,
# the derivative for one weight is
#
# $$\frac{\partial L_{\text{exam}}}{\partial w_i} \;=\;
# -\,\nabla\ell_i^{\top}\, H^{-1}\, \nabla L_{\text{exam}},$$
#
# with $H$ the curvature of the training loss. In words: an example whose pull on the student points
# the same way as the exam's gains weight; one that pulls against it loses weight. (The code divides
# the weights by their sum, so that they cannot change how fast the student learns; that scales and
# shifts the derivative, the same for all examples.)
#
# ## The whole problem in a few lines
#
# Each line below is one choice. `Table` is the commentary, a free number for each example;
# `Bilevel` says what is solved; the two optimisers say how student and commentary move; and
# `hypergradient` says how the derivative is taken. `train` then alternates: the student takes some
# steps, the commentary takes one.


# %%
def learn(data, hypergradient, steps=60):
    """Learns a weight for each training example; yields them after every step of the commentary."""
    commentary = ExampleWeights(Table(len(data.x)))
    problem = Bilevel(inner=taught(student, commentary), outer=judged(student))
    lesson = Batch(data.x, data.given, torch.arange(len(data.x)))
    exam = Batch(data.trusted.x, data.trusted.y, torch.arange(len(data.trusted)))

    optimizers = {
        "inner_optimizer": SGD(lr=0.2, momentum=0.9, nesterov=True, weight_decay=0.01),
        "outer_optimizer": Adam(lr=0.1),
    }
    state = start(student.init, commentary.init(torch.Generator()), **optimizers)
    for result in train(
        problem,
        state,
        **optimizers,
        hypergradient=hypergradient,
        inner=lambda student, step: lesson,
        outer=lambda student, step: exam,
        schedule=Schedule(steps, inner_steps=5),
    ):
        yield commentary.raw(result.state.phi, lesson)


implicit = Implicit(ConjugateGradient(max_iterations=5, damping=0.1))
undecided = torch.full((len(data.x),), 0.5)  # before anything is learned
history = torch.stack([undecided, *learn(data, implicit)])  # (steps + 1, examples)
weights = history[-1]

# %% [markdown]
# ## Watch the wrong labels lose their weight
#
# All weights begin in the middle. The bands hold half and nine tenths of each group; the lines are
# medians. The commentary was never told which group an example belongs to.

# %%
levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
groups = {"right": ~data.wrong, "wrong": data.wrong}
weights_over_training(
    [
        {"step": step, "weights": {k: w[g].quantile(levels).tolist() for k, g in groups.items()}}
        for step, w in enumerate(history)
    ]
)

# %%
right_now, wrong_now = weights[~data.wrong].median(), weights[data.wrong].median()
say(
    f"The median weight of a right label is now **{right_now:.2f}** and that of a wrong one "
    f"**{wrong_now:.2f}**. Of a right and a wrong label picked at random, the right one has the "
    f"larger weight in **{roc_auc_score(data.wrong, -weights):.1%}** of all cases (the AUROC)."
)

# %% [markdown]
# The same for single examples, red where the label is wrong:

# %%
chosen = [
    *data.wrong.nonzero().flatten()[::60][:8].tolist(),
    *(~data.wrong).nonzero().flatten()[::190][:4].tolist(),
]
figure, grid = plt.subplots(
    2, 12, figsize=(9.6, 1.9), dpi=120, layout="constrained", height_ratios=(1.3, 1)
)
for row, (above, below) in zip(chosen, grid.T, strict=True):
    show(above, row)
    below.plot(history[:, row], color=VERMILION if data.wrong[row] else BLUE, linewidth=1.5)
    below.axhline(0.5, color=GREY, linewidth=0.6, linestyle=(0, (2, 3)))
    below.set(ylim=(0, 1), xticks=[], yticks=[0, 1] if row == chosen[0] else [])
    below.tick_params(length=0, labelsize=8)
    below.spines[["top", "right"]].set_visible(False)
    below.spines[["left", "bottom"]].set_color(GREY)
grid[1, 0].set_ylabel("weight", fontsize=8.5)
plt.show()

# %% [markdown]
# Where does it err? Above, the right labels that it believes least; below, the wrong labels that it
# believes most. Under each image stands its weight.

# %%
figure, grid = plt.subplots(2, 10, figsize=(9.6, 2.7), dpi=120, layout="constrained")
for line, group, sign in ((grid[0], ~data.wrong, 1), (grid[1], data.wrong, -1)):
    rows = group.nonzero().flatten()
    for row, axes in zip(rows[(sign * weights[rows]).argsort()[:10]].tolist(), line, strict=True):
        show(axes, row)
        axes.set_xlabel(f"{weights[row]:.2f}", fontsize=9, color=GREY, labelpad=3)
plt.show()

# %% [markdown]
# ## Does the student get better?
#
# Now fresh students are trained by an ordinary recipe, this time with weight decay, which does hold
# them back. Beside the learned weights stand the things one would try first, and one that should
# *not* work: the same weights, handed to the wrong examples. Everything is repeated on new splits,
# mistakes and students that played no part when the settings were chosen; the bars are 95 %
# intervals of the mean.

# %%
SEEDS = range(10, 15)


def compare(seed):
    """Test accuracy of each method, and how well the weights find the wrong labels."""
    data = make(seed)
    *_, weights = learn(data, implicit)
    shuffled = weights[torch.randperm(len(weights), generator=torch.Generator().manual_seed(seed))]
    checked = Examples(data.trusted.x, data.trusted.y, torch.ones(len(data.trusted)))

    def student_of(weight, anchors=None):
        lessons = Examples(data.x, data.given, weight)
        return accuracy(data, fit(student, lessons, Recipe(), seed=seed, anchors=anchors))

    equal = torch.ones(len(data.x))
    return {
        "all labels alike": student_of(equal),
        "all labels and the trusted": student_of(equal, anchors=checked),
        "trusted alone": accuracy(data, fit(student, checked, Recipe(), seed=seed)),
        "weights, shuffled": student_of(shuffled),
        "learned weights": student_of(weights),
        "oracle": student_of((~data.wrong).float()),
    }, roc_auc_score(data.wrong, -weights)


found, aurocs = zip(*map(compare, SEEDS), strict=True)
summary = {name: mean_interval([each[name] for each in found]) for name in found[0]}
method_comparison(summary, label="test accuracy", highlight="learned weights")

# %%
plain, learned, oracle = (
    summary[name].mean for name in ("all labels alike", "learned weights", "oracle")
)
say(
    f"Over {len(SEEDS)} seeds the learned weights take the student from **{plain:.1%}** to "
    f"**{learned:.1%}**. The oracle, which leaves out exactly the wrong labels, reaches "
    f"{oracle:.1%}: **{(learned - plain) / (oracle - plain):.0%}** of that gap is closed. The mean "
    f"AUROC of the weights is {np.mean(aurocs):.3f}."
)

# %% [markdown]
# The shuffled weights have the same values as the learned ones, so what helps is *which* examples
# they belong to. And the trusted examples by themselves are too few: the commentary uses them to
# find out which of the many others to believe.
#
# ## One word changes
#
# How the derivative is taken is a choice of its own, apart from everything above. Conjugate
# gradients solve with $H$; the shortest Neumann series replaces $H^{-1}$ by a multiple of the
# identity; unrolling differentiates through the last training steps instead.

# %%
choices = {
    "Implicit(ConjugateGradient(5, damping=0.1))": implicit,
    "Implicit(Neumann(terms=1, step_size=1.0))": Implicit(Neumann(terms=1, step_size=1.0)),
    "Unrolled()": Unrolled(),
}
table = []
for name, hypergradient in choices.items():
    *_, final = learn(data, hypergradient)
    lessons = Examples(data.x, data.given, final)
    score = accuracy(data, fit(student, lessons, Recipe(), seed=0))
    table.append([f"`{name}`", score, roc_auc_score(data.wrong, -final)])
say(markdown_table(["hypergradient", "test accuracy", "AUROC of the weights"], table))

# %% [markdown]
# ## For real work: one command
#
# A table of free numbers knows nothing about examples that it has not seen, and after many steps it
# begins to fit the exam. The command learns a small network that reads several *cues* about each
# label (what the neighbours say, how the student sees it), trains two students that check each
# other, corrects labels, runs controls and writes a page:

# %%
run = Path("runs/01_example_weights")
rmtree(run, ignore_errors=True)  # what an earlier pass through this notebook left
# %run -m commentaries learn weights --noise pair --rate 0.4 --out runs/01_example_weights

# %% [markdown]
# Open `runs/01_example_weights/report.html` in a browser for the whole page: how many labels to
# look at, a gallery by class, every method, the curves. The methods on it:

# %%
result = json.loads((run / "result.json").read_text())
method_comparison(result["accuracy"], label="test accuracy")

# %% [markdown]
# `self-trained votes` deserves a second look. It is the same pipeline with nothing learned, and on
# digits, whose classes are clusters of pixels, it needs no commentary; the README has the
# measurements. A claim is worth as much as the controls beside it, so the command runs them
# wherever there is something to score them by.
#
# Of each label, the two examples that it distrusts most, with the correction that it suggests:

# %%
digits = load("digits")
with (run / "weights.csv").open(newline="") as file:
    lines = sorted(csv.DictReader(file), key=lambda line: -float(line["suspicion"]))
at = [int(line["file"].removeprefix("digits/")) for line in lines]

figure, grid = plt.subplots(2, 10, figsize=(9.6, 2.5), dpi=120, layout="constrained")
for label, column in zip(digits.classes, grid.T, strict=True):
    of_label = [place for place, line in enumerate(lines) if line["label"] == label]
    for place, axes in zip(of_label, column, strict=False):
        axes.imshow(digits.x[at[place], 0], cmap="gray_r")
        text = f"“{label}” → {lines[place]['suggested']}"
        axes.set_title(text, fontsize=10, color=INK, pad=4)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=GREY, linewidth=0.6)
plt.show()

labels = {
    column: torch.tensor([int(line[column]) for line in lines]) for column in ("label", "suggested")
}
right = {column: float((label == digits.y[at]).float().mean()) for column, label in labels.items()}
say(
    f"Of the {len(lines):,} given labels {right['label']:.1%} were right; of those that the "
    f"command suggests, **{right['suggested']:.1%}** are."
)

# %% [markdown]
# For images of your own, with a smaller folder of images whose labels you have checked:
#
# ```text
# commentaries learn weights --data FOLDER --trusted FOLDER
# ```
