"""Personalise a model in Python: load, attach, train, evaluate, merge, export. Run it: python docs/personalise.py"""

# %% A base model, and what one device's own sensor sees of the same digits.
import sys
from pathlib import Path

import numpy as np

from tinypeft import Model
from tinypeft.demo import make_model

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("build") / "personalise"
files = make_model(folder)
data = np.load(files.data)
rng = np.random.RandomState(0)
mine = np.concatenate([rng.permutation(np.where(data["y"] == digit)[0])[:15] for digit in range(10)])
learn, others = mine.reshape(10, 15)[:, :5].ravel(), mine.reshape(10, 15)[:, 5:].ravel()

# %% LoRA on every layer that can have one, and the classifier retrained.
model = Model.load(files.model, calibration=data["x_base"]).attach("lora", r=4, lora_alpha=8)
print(f"{len(model.layers)} layers: {', '.join(model.layers)}")

# %% Train on the interpreter, which needs no compiler. on="host" runs the generated C, on="qemu" a board's firmware:
# the same bytes come out.
test = data["x"][others], data["y"][others]
trained = model.train(
    data["x"][learn], data["y"][learn], on="interpreter", epochs=4, learning_rate=0.02, seed=0, test=test
)
print(f"accuracy on {len(others)} other digits: {trained.accuracy_before:.1%} -> {trained.accuracy_after:.1%}")
print(f"the adapter: {len(trained.package):,} B, SHA-256 {trained.adapter_sha256[:16]}…")

# %% As files: PEFT's for the host, a package for the device; and back.
model.export(trained, folder / "adapter", user="one")
again = model.import_adapter(folder / "adapter")
print(f"exported and imported: {'the same package' if again.package == trained.package else 'another package'}")
evaluated = model.evaluate(*test, again, on="interpreter")
print(f"accuracy of the imported adapter: {evaluated.accuracy:.1%}")

# %% Merged into the base: a plain int8 model that costs what the base costs, and what rounding it has lost.
report = model.merge(again, folder / "merged.tflite", keras=folder / "merged.keras", x=test[0], y=test[1])
for layer in report.layers:
    print(f"{layer.layer}: moved by {layer.mean_change:.2f} steps in the mean, rounded by {layer.mean_error:.2f}")
assert report.check is not None
print(f"merged: {report.check.merged.accuracy:.1%}, {report.check.agreement:.1%} of decisions as the device's")
