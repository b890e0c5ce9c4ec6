"""`tfx compare microgpt`: the loss of one document, for holding one backend against another."""

from __future__ import annotations

from collections.abc import Callable

from tfx.core.backend import Backend
from tfx.core.checkpoint import load_checkpoint
from tfx.core.errors import UsageError
from tfx.core.parameters import Parameters
from tfx.core.recipe import CompareSettings, Example, computable
from tfx.core.tensor import Tensor
from tfx.models.microgpt.data import Names
from tfx.models.microgpt.model import Config, Params, initial_weights, loss
from tfx.models.microgpt.options import Options
from tfx.models.microgpt.run import NAME, Model, shuffled
from tfx.models.microgpt.vocabulary import Vocabulary


def example(settings: CompareSettings, backend: Backend, note: Callable[[str], None]) -> Example:
    """The mean loss over the first document that a run with the seed would learn from.

    The documents are the bundled ones, whether or not the reference's are here: the same
    everywhere. The parameters are those the run would begin with, or `settings.weights`.

    Raises:
        TfxError: the weights, the prompt or the dtype will not do.
    """
    settings.refuse_unsupported(NAME, {"weights", "prompt", "dtype", "seed"})
    seed = Options.seed if settings.seed is None else settings.seed
    documents, rng = shuffled(Names.census, seed, note)
    if settings.weights is None:
        vocabulary = Vocabulary.of(documents)
        config = Config(len(vocabulary))
        dtype = computable(NAME, settings.dtype or Options.dtype, backend)
        params = Parameters.from_host(initial_weights(config, rng), backend, dtype)
        model = Model(config, vocabulary, params)
    else:
        model = Model.of(load_checkpoint(settings.weights, NAME), backend, settings.dtype)
    document = documents[0] if settings.prompt is None else settings.prompt
    if settings.prompt is not None and len(document) >= model.config.block_size:
        raise UsageError(
            f"the prompt has {len(document)} characters; this model takes at most "
            f"{model.config.block_size - 1}"
        )
    window = model.windows(document)

    def mean_loss(p: Params) -> Tensor:
        return loss(p, model.config, *window)

    return Example(model.params, mean_loss)
