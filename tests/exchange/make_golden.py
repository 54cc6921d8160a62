"""Writes golden/ with PEFT itself: adapters as save_pretrained leaves them, and the weights it merges them to.

Run it where torch and peft are installed: `python tests/exchange/make_golden.py`. It gives the same tensors each time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent / "golden"

#: folder -> (class of peft, its arguments)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("LoraConfig", {"r": 2, "lora_alpha": 8, "target_modules": ["conv", "point", "fc"]}),
    "rslora_patterns": (
        "LoraConfig",
        {
            "r": 2,
            "lora_alpha": 6,
            "use_rslora": True,
            "target_modules": r"features\.(conv|point)|fc",
            "rank_pattern": {"fc": 3, r"features\.conv": 1},
            "alpha_pattern": {"point": 5},
        },
    ),
    "saved_bias_all": (
        "LoraConfig",
        {"r": 1, "lora_alpha": 4, "target_modules": ["conv"], "modules_to_save": ["head"], "bias": "all"},
    ),
    "bias_lora_only": ("LoraConfig", {"r": 1, "lora_alpha": 1, "target_modules": ["fc"], "bias": "lora_only"}),
    "ia3": (
        "IA3Config",
        {
            "target_modules": ["conv", "point", "fc", "head"],
            "feedforward_modules": ["point", "fc"],
        },
    ),
}


def network() -> Any:
    """A small network with weights by a fixed seed."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential()
            self.features.add_module("conv", nn.Conv2d(2, 4, (3, 2)))
            self.features.add_module("point", nn.Conv2d(4, 3, 1))
            self.fc = nn.Linear(3, 5)
            self.head = nn.Linear(5, 4)

        def forward(self, x: Any) -> Any:
            return self.head(torch.relu(self.fc(torch.relu(self.features(x)).mean((2, 3)))))

    torch.manual_seed(0)
    return Net()


def write(golden: Path) -> None:
    """Write base.safetensors and a folder a case."""
    import peft
    import torch
    from safetensors.torch import save_file

    golden.mkdir(parents=True, exist_ok=True)
    save_file(network().state_dict(), golden / "base.safetensors")
    for number, (name, (config, arguments)) in enumerate(CASES.items()):
        model = peft.get_peft_model(network(), getattr(peft, config)(**arguments))
        torch.manual_seed(100 + number)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn_like(parameter)
        model.save_pretrained(golden / name)
        (golden / name / "README.md").unlink()
        save_file(model.merge_and_unload().state_dict(), golden / name / "merged.safetensors")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
