# %% [markdown]
# # Where should a student look?
#
# A handwritten digit lies somewhere on a photograph. A student that is told which digit it is, but
# not where, has to find out from a few examples that stones and petals do not matter. It would
# learn better if it were shown the right piece of each image, but nobody has marked the places.
#
# So let a second network choose where to look: a **commentary** in the form of a mask. Nobody tells
# it the places either. It learns from what its choice does to the student's result on other images.
# We know the places and keep them to ourselves, to see afterwards whether it has found them; and
# then we look for the ways in which such masks can fool us. The notebook needs nothing but an
# installed `commentaries`, runs on one core in a minute or two, and every number in it is computed
# below.

# %%
# %matplotlib inline
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from torch import nn
from torch.nn import functional

from commentaries import AttentionMasks, Batch, Bilevel, Student, taught, train
from commentaries.commentary import GaussianWindow, UNetMask, calibrated_cross_entropy, judged
from commentaries.data import coloured_digits, load, pasted_digits, photo_crops, split
from commentaries.hypergradient import Implicit
from commentaries.inner import SGD, Adam
from commentaries.networks import build, unet
from commentaries.report import markdown_table, mean_interval, method_comparison
from commentaries.report.figures import BLUE, INK, VERMILION
from commentaries.report.lesson_figures import image_grid
from commentaries.solvers import Identity
from commentaries.teaching.saliency import grad_cam, saliency
from commentaries.teaching.windows import centre_of, localisation, windows
from commentaries.training import (
    Examples,
    Recipe,
    Schedule,
    fit,
    log_probabilities,
    order,
    start,
)

torch.set_num_threads(1)  # fastest for networks this small


def say(text):
    """Shows a sentence with computed numbers in it."""
    display(Markdown(text))


# %% [markdown]
# ## Digits on photographs
#
# The digits and two photographs, of a temple and of a flower, come with scikit-learn. Each digit is
# pasted in yellow at a random place on a random piece of a photograph, which is darkened a little,
# because nobody can read light digits on a bright sky. Training, exam and test have digits of their
# own, and the test has parts of the photographs of its own. The **exam** is what the masks will be
# judged by.

# %%
SIZE, DIGIT = 24, 10  # pixels


def make(seed):
    """Training, exam and test images, each with the box of its digit, which no method sees."""
    digits = load("digits")
    rows = split(digits.y, train=400, trusted=600, test=797, seed=seed)

    def pasted(rows, part, number):
        at = 3 * seed + number
        photos = photo_crops(len(rows), part, size=SIZE, seed=at)
        return pasted_digits(
            replace(photos, x=0.7 * photos.x),
            digits.rows(rows),
            label="digit",
            size=DIGIT,
            colour=(1.0, 1.0, 0.6),
            seed=at,
        )

    return SimpleNamespace(
        train=pasted(rows.train, "train", 0),
        exam=pasted(rows.trusted, "train", 1),
        test=pasted(rows.test, "test", 2),
    )


SEED = 10  # a split on which the windows were known to find the digits
data = make(SEED)
sample = data.test.rows(torch.stack([(data.test.images.y == y).nonzero()[0, 0] for y in range(10)]))
say(
    f"There are {len(data.train)} training images of {SIZE} × {SIZE} pixels, {len(data.exam)} in "
    f"the exam and {len(data.test)} for testing. The boxes of the digits cover "
    f"{data.test.region().double().mean():.0%} of the images."
)


def as_arrays(images):
    return [image.detach().clamp(0, 1).numpy() for image in images]


image_grid(
    [as_arrays(sample.images.x)],
    rows=("test images",),
    columns=[f"{label}" for label in sample.images.y.tolist()],
    boxes=sample.box.tolist(),
)

# %% [markdown]
# ## A student that sees everything
#
# The student is a small convolutional network. First it sees whole images.

# %%
pixels = data.train.images.x
student = Student(
    lambda: build(
        "conv2",
        10,
        channels=3,
        size=SIZE,
        mean=pixels.mean((0, 2, 3)).tolist(),
        std=pixels.std((0, 2, 3)).tolist(),
    )
)
recipe = Recipe(steps=300, batch=64, lr=0.02, weight_decay=5e-4)


def student_of(x, y, *, student=student, recipe=recipe, seed=0):
    """A student trained on images as they are given."""
    return fit(student, Examples(x, y, torch.ones(len(y))), recipe, seed=seed)


def accuracy(theta, x, y, seen, *, student=student):
    answers = log_probabilities(student, theta, x, seen=seen).argmax(dim=1)
    return float((answers == y).float().mean())


unmasked = student_of(data.train.images.x, data.train.images.y, seed=SEED)
on_train, on_test = (
    accuracy(unmasked, part.images.x, part.images.y, data.train.images.x)
    for part in (data.train, data.test)
)
say(
    f"It is right on **{on_train:.0%}** of the training images and on **{on_test:.0%}** of the "
    "test images; one in ten would be luck."
)

# %% [markdown]
# ## A window that can be moved
#
# The commentary is a network that looks at the whole image and names a place, and the student sees
# a soft window around it. To name a place, the network gives every pixel $p$ a score $u_p(x)$; the
# place is the mean of all pixels, weighted by the softmax of their scores, and the window falls off
# around it like a Gaussian:
#
# $$c(x) = \sum_p p\,\operatorname{softmax}(u(x))_p
# \qquad\qquad
# m_p(x) = \exp\Bigl(-\frac{\lVert p - c(x)\rVert^2}{2\sigma^2}\Bigr).$$
#
# All of this is smooth, so that one can ask how the student's result changes as the window moves.
# At first all scores are equal and every window lies in the middle. The network is a small U-Net; σ
# stays fixed here, so that all the windows that we compare are of one size.

# %%
WIDE = 0.2  # of the side
window = GaussianWindow(lambda: unet(1, channels=3), deviation=WIDE, learned=False)
commentary = AttentionMasks(window)


@torch.no_grad()
def masks_of(commentary, phi, x):
    """Masks (n, 1, height, width); labels do not enter."""
    nothing = torch.zeros(len(x), dtype=torch.int64)
    return commentary.masks(phi, Batch(x, nothing, nothing))


# %% [markdown]
# Good windows are those with which a student learns something that serves in the exam, which it
# sees through the windows too. With $m \odot x$ for an image seen through its mask:
#
# $$\min_\phi\; L_{\text{exam}}\bigl(\theta^*(\phi);\; m_\phi \odot x\bigr)
# \qquad\text{where}\qquad
# \theta^*(\phi) = \arg\min_\theta\; L_{\text{train}}(\theta;\; m_\phi \odot x).$$
#
# The mask network $\phi$ appears twice, and so its derivative has two parts. The **direct** one:
# how would *this* student do in the exam if its windows were moved? And the one **through the
# training**: if the windows on the training images were moved, what would the student learn in its
# next step, and would that serve in the exam?
#
# In the library, `taught(student, commentary)` is the training loss, `judged(student, loss,
# commentary=commentary)` the exam seen through the masks, and the hypergradient adds both parts.
# `Implicit(Identity(scale=lr))` looks one step of the student ahead; the notebook on mixing derives
# it. The loss of the exam is `calibrated_cross_entropy`, for a reason that we shall come to.


# %%
def learn(
    data,
    commentary,
    *,
    seed,
    steps=200,
    student=student,
    lr=0.02,
    outer_lr=0.005,
    loss=calibrated_cross_entropy,
):
    """Learns masks; yields the state after every step."""
    problem = Bilevel(taught(student, commentary), judged(student, loss, commentary=commentary))
    optimizers = {
        "inner_optimizer": SGD(lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
        "outer_optimizer": Adam(lr=outer_lr),
    }

    def batches(images, seed):
        drawn = order(len(images), 64, seed=seed)

        def batch(which, step):
            index = drawn(step)
            return Batch(images.x[index], images.y[index], index, seed=step)

        return batch

    phi = commentary.init(torch.Generator().manual_seed(seed))
    for result in train(
        problem,
        start(student.init, phi, seed=seed, **optimizers),
        **optimizers,
        hypergradient=Implicit(Identity(scale=lr)),
        inner=batches(data.train.images, seed),
        outer=batches(data.exam.images, seed + 1),
        schedule=Schedule(steps, warm_up=60),
    ):
        yield result.state


first = commentary.init(torch.Generator().manual_seed(SEED))
states = list(learn(data, commentary, seed=SEED))
history = [first, *(state.phi for state in states)]
phi = history[-1]

# %% [markdown]
# ## Watch it find the digits
#
# Test images as the student sees them while the windows are learned. The boxes are only drawn here;
# nothing above has seen them.

# %%
STEPS = (0, 100, 150, 200)
seen = [sample.images.x * masks_of(commentary, history[step], sample.images.x) for step in STEPS]
image_grid(
    [as_arrays(each) for each in (sample.images.x, *seen)],
    rows=("image", *(f"step {step}" for step in STEPS)),
    columns=[f"{label}" for label in sample.images.y.tolist()],
    boxes=sample.box.tolist(),
)

# %% [markdown]
# Two numbers for it: which share of a window's **mass** lies in the box, and how often the window
# **points** into the box with its brightest pixel.


# %%
def about(places):
    """Windows like the learned ones about given places."""
    return windows(places, WIDE * SIZE, SIZE, SIZE)


def found_by(phi):
    return localisation(masks_of(commentary, phi, data.test.images.x), data.test)


at = range(0, len(history), 10)
path = [found_by(history[step]) for step in at]
anywhere = torch.rand(len(data.test), 2, generator=torch.Generator().manual_seed(0)) * (SIZE - 1)
chance = localisation(about(anywhere), data.test)

figure, axes = plt.subplots(figsize=(7.2, 2.8), dpi=120, layout="constrained")
for name, colour in (("pointing", BLUE), ("mass", VERMILION)):
    values = [100 * getattr(each, name) for each in path]
    axes.plot(list(at), values, color=colour, linewidth=1.8)
    axes.annotate(
        name, (at[-1], values[-1]), (8, 0), textcoords="offset points",
        color=colour, fontsize=9.5, va="center", annotation_clip=False,
    )  # fmt: skip
    axes.axhline(100 * getattr(chance, name), color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
axes.set(xlabel="step", ylabel="%", ylim=(0, 101), xlim=(0, at[-1]))
axes.set_title("dotted: windows at random places", fontsize=9.5, color=INK, loc="left")
axes.spines[["top", "right"]].set_visible(False)
plt.show()
say(
    f"After {at[-1]} steps **{path[-1].pointing:.0%}** of the windows point into the box of the "
    f"digit, and {path[-1].mass:.0%} of their mass lies there. In the middle of the image, where "
    f"they began, it was {path[0].pointing:.0%} and {path[0].mass:.0%}; at random places it would "
    f"be {chance.pointing:.0%} and {chance.mass:.0%}."
)

# %% [markdown]
# And which of the two derivatives has taught it that? At the last state, on one batch:

# %%
theta = states[-1].students[0].theta
problem = Bilevel(
    taught(student, commentary), judged(student, calibrated_cross_entropy, commentary=commentary)
)


def flat(values):
    return torch.cat([value.flatten() for value in values])


lesson, exam = (
    Batch(part.images.x[:128], part.images.y[:128], torch.arange(128))
    for part in (data.train, data.exam)
)
live = {name: value.detach().requires_grad_() for name, value in phi.items()}
direct = flat(torch.autograd.grad(problem.outer(theta, live, exam), list(live.values())))
total = flat(
    Implicit(Identity(scale=0.02))(
        problem, SGD(lr=0.02), theta, phi, inner=[lesson], outer=exam
    ).value.values()
)
say(
    f"The direct derivative is **{direct.norm() / (total - direct).norm():.1f} times** as long as "
    "the one through the training, which looks but one step of the student ahead."
)

# %% [markdown]
# ## Masks beside explanations
#
# The usual way to see where a network looks is to train it first and to explain it afterwards: by
# the gradient of its answer with respect to the pixels (*saliency*), or by which places of its last
# convolution speak for the answer (*Grad-CAM*). Here are both for the student that saw everything,
# beside the learned windows. Of each we take the window about its centre, so that all are alike.

# %%
explained = [
    attribute(student, unmasked, sample.images.x, seen=data.train.images.x)[:, 0]
    for attribute in (saliency, grad_cam)
]
image_grid(
    [
        as_arrays(line)
        for line in (
            sample.images.x,
            masks_of(commentary, phi, sample.images.x)[:, 0],
            *(each / each.amax((1, 2), keepdim=True).clamp_min(1e-30) for each in explained),
        )
    ],
    rows=("image", "learned", "saliency", "Grad-CAM"),
    boxes=sample.box.tolist(),
)


# %%
def explained_by(attribute, theta, marked, seen):
    """Windows about the centres of what explains a student."""
    return about(centre_of(attribute(student, theta, marked.images.x, seen=seen)))


rows = [["learned", *found_by(phi)]]
for name, attribute in (("saliency", saliency), ("Grad-CAM", grad_cam)):
    shown = explained_by(attribute, unmasked, data.test, data.train.images.x)
    rows.append([name, *localisation(shown, data.test)])
say(markdown_table(["window", "mass in box", "pointing"], rows))

# %% [markdown]
# ## Does the student get better?
#
# Fresh students, which differ only in what they are shown, in training and in the test:
#
# - **no mask**: whole images;
# - **shuffled windows**: the learned windows of *other* images;
# - **saliency window**: the windows from above;
# - **oracle**: windows about the true places;
# - **exam as lessons**: whole images, and the exam's too are trained on. The windows have seen
#   them; what else could they have been used for?


# %%
def true_places(marked):
    top, left, bottom, right = marked.box.float().unbind(1)
    return torch.stack([(top + bottom - 1) / 2, (left + right - 1) / 2], dim=1)


def shuffled(masks):
    return masks[torch.randperm(len(masks), generator=torch.Generator().manual_seed(0))]


x, y, test = data.train.images.x, data.train.images.y, data.test.images
more_x, more_y = (
    torch.cat([each, getattr(data.exam.images, n)]) for each, n in ((x, "x"), (y, "y"))
)
ways = {
    "shuffled windows": lambda marked: shuffled(masks_of(commentary, phi, marked.images.x)),
    "saliency window": lambda marked: explained_by(saliency, unmasked, marked, x),
    "learned windows": lambda marked: masks_of(commentary, phi, marked.images.x),
    "oracle": lambda marked: about(true_places(marked)),
}
scores = {
    "no mask": on_test,
    "exam as lessons": accuracy(student_of(more_x, more_y, seed=SEED), test.x, test.y, x),
}
for name, way in ways.items():
    shown = x * way(data.train)
    theta = student_of(shown, y, seed=SEED)
    scores[name] = accuracy(theta, test.x * way(data.test), test.y, shown)
method_comparison(scores, label="test accuracy", highlight="learned windows")

# %%
ours = scores["learned windows"]
luck = 2 * (2 * ours * (1 - ours) / len(test)) ** 0.5


def beside(name):
    """One method against the learned windows, in words."""
    gap = scores[name] - ours
    word = "about as often" if abs(gap) < luck else "more often" if gap > 0 else "less often"
    return f"{word} with **{name}** ({scores[name]:.1%})"


say(
    f"The student behind the learned windows is right on **{ours:.1%}** of the test images. Fresh "
    f"students are right {', '.join(beside(name) for name in scores if name != 'learned windows')}."
)
say(
    f"We call it “about as often” where the difference is less than {luck:.1%}, which the luck of "
    f"{len(test)} test images could make. Another training set would add to that: this is one "
    "split. For the claims further below there are several."
)

# %% [markdown]
# Mind the shuffled windows: they have the same shape, the same size and the same places, but each
# lies on the wrong image. If a student did well behind them, the places would mean nothing. And
# mind the exam as lessons: whoever has labelled images to spare for an exam should ask what they
# would have given in the training set.

# %% [markdown]
# ## How masks fail: looking away
#
# Why the calibrated loss? A student that has learned few images by heart is sure of its answers
# even where it errs, and the plain cross-entropy makes it pay dearly for that. Here is the exam of
# two students that see everything, the one from above and one with a quarter of its lessons, marked
# in both ways; and what a student gets that sees nothing and gives all classes the same chance.

# %%
exam = data.exam.images
few = len(data.train) // 4
hasty = student_of(x[:few], y[:few], seed=SEED)


def marked_twice(theta, seen):
    """Share of right answers in the exam, plain and calibrated loss."""
    answers = log_probabilities(student, theta, exam.x, seen=seen)
    right = (answers.argmax(dim=1) == exam.y).float().mean()
    losses = functional.cross_entropy(answers, exam.y), calibrated_cross_entropy(answers, exam.y)
    return [float(right), *(float(each.mean()) for each in losses)]


nothing = float(np.log(10))
marks = {
    f"{len(x)} images, everything": marked_twice(unmasked, x),
    f"{few} images, everything": marked_twice(hasty, x[:few]),
    "nothing": [0.1, nothing, nothing],
}
columns = ["student of", "right in the exam", "plain loss", "calibrated loss"]
say(markdown_table(columns, [[name, *values] for name, values in marks.items()]))
right, plain, _ = marks[f"{few} images, everything"]
say(
    f"The student of {few} images is right on {right:.0%} of the exam. "
    + (
        "Yet by the plain loss it would be **better to see nothing**. Masks that are judged by it "
        "can win by hiding the digits."
        if plain > nothing
        else "By either loss that is better than to see nothing."
    )
)

# %% [markdown]
# The calibrated loss divides the student's certainty by whatever suits it best before the exam is
# marked. That is never worse than to see nothing, so it pays to look at whatever helps. It is no
# guarantee, though. With smaller batches or smaller students, windows have lost the digits on some
# splits under it, too. The command at the end of this notebook lets the student learn for longer
# before the windows move, and moves them more slowly.
#
# ## How masks fail: the exam rewards the wrong thing
#
# Now data that mislead: the digits alone, on coloured paper. In training nine out of ten have the
# colour of their class. They are tested twice, with colours as in training, and **flipped**: the
# same digits, none of them in the colour of its class.
#
# This time the masks are free, one number for each pixel (`UNetMask`), and they are learned twice:
# judged by an exam in which colours are drawn at random, and by one that has the cue, too. The
# student has one hidden layer.

# %%
reader = Student(nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.Tanh(), nn.Linear(64, 10)))
free = AttentionMasks(UNetMask(lambda: unet(1, channels=3, depth=1)))


def make_coloured(seed):
    """Training, exam and test images, and the exam and the test with other colours."""
    digits = load("digits")
    rows = split(digits.y, train=900, trusted=300, test=597, seed=seed)

    def coloured(rows, correlation, number):
        return coloured_digits(
            digits.rows(rows),
            correlation=correlation,
            seed=3 * seed + number,
            where="background",
        )

    return SimpleNamespace(
        train=coloured(rows.train, 0.9, 0),
        exam=coloured(rows.trusted, 0.1, 1),
        exam_with_cue=coloured(rows.trusted, 0.9, 1),
        test=coloured(rows.test, 0.9, 2),
        flipped=coloured(rows.test, 0.0, 2),
    )


def learn_free(data, seed):
    *_, state = learn(data, free, seed=seed, steps=100, student=reader, lr=0.1, outer_lr=0.02)
    return state.phi


def with_cue(data):
    return SimpleNamespace(train=data.train, exam=data.exam_with_cue)


SEEDS = (20, 21, 22)
sets = [make_coloured(seed) for seed in SEEDS]
learned = [learn_free(each, seed) for each, seed in zip(sets, SEEDS, strict=True)]
misled = [learn_free(with_cue(each), seed) for each, seed in zip(sets, SEEDS, strict=True)]

chosen = torch.stack([(sets[0].test.images.y == label).nonzero()[0, 0] for label in range(10)])
usual, flipped = (part.images.x[chosen] for part in (sets[0].test, sets[0].flipped))
image_grid(
    [
        as_arrays(line)
        for line in (
            usual,
            masks_of(free, learned[0], usual)[:, 0],
            masks_of(free, misled[0], usual)[:, 0],
            flipped,
            masks_of(free, learned[0], flipped)[:, 0],
            masks_of(free, misled[0], flipped)[:, 0],
        )
    ],
    rows=("test", "random colours", "the cue too", "flipped", "random colours", "the cue too"),
    columns=[f"{label}" for label in range(10)],
)

# %% [markdown]
# Under each image stand its masks, first those of the exam with random colours, then those of the
# exam with the cue. Students behind them, beside the controls that any claim about masks needs: no
# mask; the **mean** mask, one for all images; the masks of other images, **shuffled**; and the
# **mask alone**, with white paper in place of the image. Three splits, each with its own masks and
# students.


# %%
def twice(data, see, seed, extra=None):
    """Accuracy with usual and with flipped colours, of a student that `see` shows images."""
    lessons = [data.train] if extra is None else [data.train, extra]
    x = see(torch.cat([part.images.x for part in lessons]))
    y = torch.cat([part.images.y for part in lessons])
    brief = Recipe(steps=200, weight_decay=5e-4)
    theta = student_of(x, y, student=reader, recipe=brief, seed=seed)
    return tuple(
        accuracy(theta, see(part.images.x), part.images.y, x, student=reader)
        for part in (data.test, data.flipped)
    )


def compare_coloured(data, phi, misled, seed):
    """Accuracies of each method, with usual and flipped colours."""
    masks, masks_with_cue = partial(masks_of, free, phi), partial(masks_of, free, misled)
    mean = masks(data.train.images.x).mean(0)
    ways = {
        "no mask": lambda x: x,
        "mean mask": lambda x: x * mean,
        "shuffled masks": lambda x: x * shuffled(masks(x)),
        "learned masks": lambda x: x * masks(x),
        "learned masks, exam with the cue": lambda x: x * masks_with_cue(x),
        "mask alone": lambda x: masks(x).expand_as(x),
    }
    scores = {name: twice(data, see, seed) for name, see in ways.items()}
    return scores | {"exam as lessons": twice(data, ways["no mask"], seed, extra=data.exam)}


found = [compare_coloured(*each) for each in zip(sets, learned, misled, SEEDS, strict=True)]
names = list(found[0])


def listed(names):
    bold = [f"**{name}**" for name in names]
    return " and ".join(filter(None, [", ".join(bold[:-1]), *bold[-1:]])) or "none of them"


def standing(found, ours):
    """How one method stands against the others: differences on the same splits, and in words."""
    rows, stands = {}, {"ahead": [], "behind": [], "cannot be told apart": []}
    for name in found[0]:
        if name != ours:
            gap = mean_interval([each[ours] - each[name] for each in found])
            word = "ahead" if gap.low > 0 else "behind" if gap.high < 0 else "cannot be told apart"
            stands[word].append(name)
            rows[name] = [f"{gap.mean:+.3f} ± {gap.high - gap.mean:.3f}", word]
    return rows, (
        f"ahead of {listed(stands['ahead'])} and behind {listed(stands['behind'])}; from "
        f"{listed(stands['cannot be told apart'])} they cannot be told apart with so few splits"
    )


usual, flipped = (
    {name: np.mean([each[name][i] for each in found]) for name in names} for i in (0, 1)
)
on_flipped = [{name: each[name][1] for name in names} for each in found]
rows, words = standing(on_flipped, "learned masks")
say(
    markdown_table(
        ["student sees", "usual", "flipped", "learned masks minus it, flipped", "they are"],
        [[name, usual[name], flipped[name], *rows.get(name, [None, None])] for name in names],
        align_right=[False, True, True, True, False],
    )
)

# %%
gap = mean_interval(
    [each["learned masks, exam with the cue"] - each["no mask"] for each in on_flipped]
)
say(
    f"With flipped colours the student behind the learned masks is right on "
    f"**{flipped['learned masks']:.1%}** of the images, one without masks on "
    f"**{flipped['no mask']:.1%}**. The learned masks are {words}."
)
say(
    f"The same masks, judged by an exam that has the cue, give "
    f"{flipped['learned masks, exam with the cue']:.1%}: "
    + (
        "less than no mask at all. Such an exam rewards masks that let the colour through."
        if gap.high < 0
        else "more than no mask."
        if gap.low > 0
        else "not to be told apart from no mask. Such an exam has no reason to ask for more."
    )
)
say(
    f"And a student that sees the mask alone is right on {flipped['mask alone']:.1%}. "
    + (
        "So the mask network does not point at the digit, it **draws** it; what looks like a place "
        "where the student looks is mostly an answer that it is given."
        if flipped["mask alone"] > (flipped["learned masks"] + 0.1) / 2
        else "So the student needs more than the mask gives away."
    )
)

# %% [markdown]
# A price on a mask's mean (`AttentionMasks(area=...)`) does not mend that by itself: a mask can
# pay it by being dim everywhere, which shows nothing about places. The windows above cannot,
# because only their place is learned.
#
# So before you believe a mask, ask by which exam it was judged, whether the mean mask and the
# shuffled ones do as well, and what the mask alone gives away.
#
# ## For real work: one command
#
# `commentaries learn masks` learns windows with checkpoints and controls and writes a page of
# figures. Without more words it makes digits on photographs of its own; as it knows their places,
# the page also says how well the masks find them. For your images, one folder for each class:
#
# ```text
# commentaries learn masks --data FOLDER
# commentaries teach RUN --student resnet18
# ```
#
# The second line trains a larger student behind the masks that a small one has found; RUN is the
# folder that the first line names. To the first line, `--controls all` adds random windows,
# saliency and Grad-CAM; with `--mask unet` it learns free masks, and `--area` puts a price on them.
