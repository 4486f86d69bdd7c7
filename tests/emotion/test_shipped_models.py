from serstream.config import ModelSettings
from serstream.emotion.inspection import inspect
from serstream.emotion.store import Reference, open_store


def test_every_model_that_ships_would_be_accepted() -> None:
    store = open_store(ModelSettings())
    references = store.references()
    assert Reference.parse(store.pointer().active) in references
    for reference in references:
        assert inspect(store.file(reference).parent).reference == str(reference)
