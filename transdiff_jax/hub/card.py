"""The model card of a published run: what it is, how it was trained, its scores, its licence."""

from collections.abc import Sequence

from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.evaluation.certificate import format_table
from transdiff_jax.hub.bundle import CONFIG
from transdiff_jax.hub.certificates import Scored
from transdiff_jax.training.run_info import parameter_count


def model_card(repo: str, licence: str, weights: Weights, train_seconds: float, scores: Sequence[Scored]) -> str:
    """The card in Markdown, with the header that the hub reads.

    Args:
        repo: OWNER/NAME.
        licence: its identifier on the hub, such as apache-2.0.
        weights: that are published; their configuration names no folders.
        train_seconds: spent on their training.
        scores: certificates.
    """
    return "\n".join(
        [
            *("---", f"license: {licence}", "library_name: transdiff_jax"),
            *("tags:", "- image-generation", "- class-conditional", "- transdiff", "- jax", "---", ""),
            *(f"# {repo.partition('/')[2]}", ""),
            *(_what(weights), ""),
            *("```python", "import transdiff_jax as td", "", f'model = td.load("hf://{repo}")'),
            *(f"images = model.sample([0, {weights.config.model.num_classes - 1}])", "```", ""),
            *("## Training", "", *_training(weights, train_seconds), ""),
            *("## Scores", "", *_scores(scores), ""),
            *("## Licence", "", f"`{licence}`", ""),
        ]
    )


def _what(weights: Weights) -> str:
    model, data = weights.config.model, weights.config.data
    kind = "1-step AR" if model.num_images == 1 else f"MRAR with {model.num_images} images"
    named = f", among them {_plain(weights.class_names[0])}" if weights.class_names else ""
    return (
        f"A TransDiff model ([arXiv 2506.09482](https://arxiv.org/abs/2506.09482)): {kind}, {model.num_classes} "
        f"classes{named}, images of {data.image_size} x {data.image_size} pixels, {parameter_count(model):,} "
        "parameters in float32."
    )


def _training(weights: Weights, seconds: float) -> list[str]:
    config = weights.config
    student = config.distillation.objective
    rows = {
        "data": f"`{config.data.source}`, split `{config.data.split}`",
        "steps": f"{weights.step} of {config.train.batch_size} rows",
        "weights": weights.name,
        "time": f"{seconds / 3600:.1f} h" if seconds else "unknown",
        "few-step student": f"`{student}`" if student != "none" else "no",
        "all settings": f"[{CONFIG}]({CONFIG})",
        "checkpoint": f"SHA-256 of its manifest: `{weights.digest}`",
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _scores(scores: Sequence[Scored]) -> list[str]:
    if not scores:
        return ["None were computed."]
    lines = []
    for scored in scores:
        lines += [f"[The certificate]({scored.name}) says on what they depend:", ""]
        lines += ["```", *format_table(scored.certificate), "```", ""]
    return lines[:-1]


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum() or letter in " ,.'-")
