"""A recipe that takes seconds, for the tests of recipes."""

SMALL = """
seeds = 3
[data]
train = "digits:train[:200]"
validation = "digits:validation"
test = "digits:test"
ood = { noisy = "digits:test[:40]" }
[difficulty]
encoder = "glyphs"
[training]
model = "mlp"
epochs = 2
device = "cpu"
[methods.cross-entropy]
loss = "cross-entropy"
[methods.difficulty-aware]
loss = "difficulty-aware"
tune = { alpha = [0.1, 5.0, 0.2] }
[methods.shuffled]
like = "difficulty-aware"
difficulty = { shuffle = true }
[methods.constant]
like = "difficulty-aware"
difficulty = { constant = true }
[methods.ensemble]
ensemble = { of = "cross-entropy", members = 2 }
[sweeps.noise]
vary = "data.label_noise"
values = [0.5]
methods = ["cross-entropy"]
"""
