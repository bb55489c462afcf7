"""`python -m jaxlm VERB ...`. A verb is a file in `jaxlm.verbs`, imported when it is asked for."""

import contextlib
import difflib
import importlib
import logging
import sys
from collections.abc import Iterator

from jaxlm.console import nobody_reads
from jaxlm.errors import RunFailed, UserError
from jaxlm.parallel import distributed

VERBS = {
    "train": "CONFIG [--section.name VALUE ...]   train, evaluate and write a model",
    "evaluate": "MODEL --data.test FILE              metrics of a model on a labelled file",
    "predict": "MODEL --text TEXT | --input FILE    predictions, a JSON line a text",
    "embed": "MODEL --input FILE --output V.npy   vectors of texts, for search and comparison",
    "fill-mask": "MODEL --text TEXT                   the likeliest words for each [MASK]",
    "search": "MODEL --documents FILES --index DIR the documents nearest to a query; --query TEXT asks",
    "tokenizer": "--input FILES --output DIRECTORY    a WordPiece vocabulary from raw text",
    "prepare": "CONFIG --output DIRECTORY           raw text to packed rows on disk, for pre-training",
    "compile": "CONFIG --topology v5e:4x4           what a run needs on a machine that is not there",
    "env": "                                    what a bug report needs",
}


@contextlib.contextmanager
def _checkpoint_errors() -> Iterator[None]:
    """A model directory that cannot be read is the user's to put right; its error class lives behind jax's import."""
    try:
        yield
    except ValueError as error:
        from jaxlm.models import CheckpointError

        if isinstance(error, CheckpointError):
            raise UserError(str(error)) from None
        raise


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb. Returns 0, 2 for the user's input, 1 for a run that went wrong, 75 after SIGTERM, which is to be
    started again, and 130 after Ctrl-C; of several processes, all the same."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print("python -m jaxlm VERB ...; --help after a verb tells more\n")
        for name, text in VERBS.items():
            print(f"  {name:9} {text}")
        return 0
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(VERBS)}"
            raise UserError(f"there is no verb {verb}; {hint}")
        with _checkpoint_errors():
            code: int = importlib.import_module(f"jaxlm.verbs.{verb.replace('-', '_')}").run(rest)
        distributed.leave()
        return code
    except UserError as error:
        return distributed.fail(2, str(error))
    except RunFailed as error:
        return distributed.fail(1, str(error))
    except KeyboardInterrupt:
        return distributed.fail(130, "stopped")
    except BrokenPipeError:  # the reader of a verb's results, such as head, has seen enough
        nobody_reads(sys.stdout)
        if distributed.member() is None:
            return 0
        return distributed.fail(1, "nobody reads what process 0 writes")
    except Exception as error:
        if distributed.member() is None:
            raise
        # A process that ended with a traceback alone would wait at its exit for the others, which wait for it.
        return distributed.fail(1, f"{type(error).__name__}: {error}", error)
    finally:
        logger = logging.getLogger("jaxlm")
        logger.handlers.clear()
        logger.propagate = True
