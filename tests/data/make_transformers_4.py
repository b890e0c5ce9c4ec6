"""Record what transformers 4.57 gives for masked and pruned heads, which version 5 no longer has.

    python -m venv old && old/bin/pip install 'transformers==4.57.*' torch numpy
    old/bin/python tests/data/make_transformers_4.py

writes `transformers_4.json` beside it. Models are small, random and in float64.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))

from golden_weights import SIZES, golden_ids, golden_padded, golden_weights  # noqa: E402

OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False},
    "unscaled": {"scale_attn_weights": False, "n_inner": 20},
}
MASKS: dict[str, Any] = {
    "by layer": [[1, 0, 0.5, 1], [0, 1, 1, 0.25], [1, 1, 0, 1]],
    "everywhere": [1, 0, 0.5, 2],
    "silent": [[0] * 4, [1] * 4, [0] * 4],
}
PRUNED: dict[str, list[dict[int, list[int]]]] = {
    "one": [{1: [2]}],
    "several": [{0: [0, 3], 2: [1]}],
    "twice": [{0: [1], 1: [0, 1, 3]}, {0: [2]}],
}
"""Steps: what is pruned at once."""


def main() -> None:
    torch.set_default_dtype(torch.float64)
    cases = [recorded(name, options) for name, options in OPTIONS.items()]
    found = {"transformers": transformers.__version__, "cases": cases}
    (HERE / "transformers_4.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


def recorded(name: str, options: dict[str, Any]) -> dict[str, Any]:
    ids = torch.tensor(golden_ids(3, 8))
    masks = {key: torch.tensor(mask, dtype=torch.float64) for key, mask in MASKS.items()}
    return {
        "name": name,
        "options": options,
        "masked": {key: masked(model_of(options), ids, mask) for key, mask in masks.items()},
        "importance": importance(model_of(options), ids),
        "pruned": {key: pruned(model_of(options), ids, steps) for key, steps in PRUNED.items()},
    }


def model_of(options: dict[str, Any]) -> Any:
    config = transformers.GPT2Config(
        **SIZES, **options, bos_token_id=None, eos_token_id=None, attn_implementation="eager"
    )
    model = transformers.GPT2LMHeadModel(config).double().eval()
    named = dict(model.named_parameters())
    mine = {key.removeprefix("transformer."): x for key, x in named.items()}
    weights = golden_weights({key: tuple(x.shape) for key, x in mine.items()})
    with torch.no_grad():
        for key, x in mine.items():
            x.copy_(torch.tensor(weights[key]))
    return model


def masked(model: Any, ids: Any, mask: Any) -> dict[str, Any]:
    """Logits, and the third layer's attention, of the first text; and `both`."""
    with torch.no_grad():
        out = model(ids[:1], head_mask=mask, output_attentions=True)
    found = {"logits": rounded(out.logits[0]), "attention": rounded(out.attentions[2][0])}
    return {"mask": mask.tolist(), **found, **both(model, ids, head_mask=mask)}


def both(model: Any, ids: Any, **how: Any) -> dict[str, Any]:
    """The logits of a padded batch behind the last token of each text, and the gradient of the mean
    loss of all texts: of each tensor, in the order of their names, its norm and its product with
    numbers that the test draws alike."""
    padded = {}
    for side in ("left", "right"):
        batch, seen, places = map(torch.tensor, golden_padded(side))
        with torch.no_grad():
            out = model(batch, attention_mask=seen.long(), position_ids=places, **how)
        last = (seen * torch.arange(seen.shape[1])).argmax(-1)
        padded[side] = rounded(out.logits[torch.arange(len(batch)), last])
    model.zero_grad()
    logits = model(ids[:, :-1], **how).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    slopes = {key.removeprefix("transformer."): x.grad for key, x in model.named_parameters()}
    beside = golden_weights({key: tuple(x.shape) for key, x in slopes.items()}, seed=1)
    products = {key: (x * torch.tensor(beside[key])).sum() for key, x in slopes.items()}
    slopes = {key: [rounded(slopes[key].norm()), rounded(products[key])] for key in sorted(slopes)}
    return {"padded": padded, "slopes": list(slopes.values())}


def importance(model: Any, ids: Any) -> Any:
    """How much a head matters: |d loss / d mask|, the mean over texts (Michel et al. 2019)."""
    total = torch.zeros(SIZES["n_layer"], SIZES["n_head"], dtype=torch.float64)
    for text in ids:
        mask = torch.ones_like(total, requires_grad=True)
        logits = model(text[None, :-1], head_mask=mask).logits
        torch.nn.functional.cross_entropy(logits[0], text[1:]).backward()
        total += mask.grad.abs()
    return rounded(total / len(ids))


def pruned(model: Any, ids: Any, steps: list[dict[int, list[int]]]) -> dict[str, Any]:
    """Logits of a text before and behind a checkpoint, its configuration, and its shapes."""
    for heads in steps:
        model.prune_heads(heads)
    with torch.no_grad():
        logits = model(ids[:1]).logits[0]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        kind = {"dtype": torch.float64, "attn_implementation": "eager"}
        again = transformers.GPT2LMHeadModel.from_pretrained(folder, **kind)
        with torch.no_grad():
            assert torch.equal(again(ids[:1]).logits[0], logits)
            greedy = again.generate(ids[:1], max_new_tokens=8, do_sample=False, pad_token_id=0)
    shapes = {name: list(x.shape) for name, x in model.named_parameters() if ".attn." in name}
    return {
        "steps": [{str(layer): heads for layer, heads in step.items()} for step in steps],
        "logits": rounded(logits),
        "greedy": greedy[0, ids.shape[1] :].tolist(),
        "pruned_heads": config["pruned_heads"],
        "shapes": shapes,
        **both(model, ids),
    }


def rounded(x: Any) -> Any:
    """Ten digits of each number."""
    if x.ndim:
        return [rounded(part) for part in x]
    return float(f"{x.item():.10g}")


if __name__ == "__main__":
    main()
