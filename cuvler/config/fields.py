"""Types of settings, with their constraints."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cuvler.pseudo_masks.methods import Distinct, Name, NoRepeats

FILE_NAME = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
ADDRESS = "^(https?://|gdrive:)."
SHA256 = "^[0-9a-fA-F]{64}$"
NAME_OR_NONE = "^([A-Za-z0-9][A-Za-z0-9_-]*)?$"

# Names become folders, wildcards and rows of tables.
Names = Annotated[tuple[Name, ...], Field(json_schema_extra={"uniqueItems": True}), NoRepeats]
SomeNames = Annotated[tuple[Name, ...], Distinct, NoRepeats]
NameOrNone = Annotated[str, StringConstraints(pattern=NAME_OR_NONE)]
FileName = Annotated[str, StringConstraints(pattern=FILE_NAME)]
Address = Annotated[str, StringConstraints(pattern=ADDRESS)]
Sha256 = Annotated[str, StringConstraints(pattern=SHA256)]
PathText = Annotated[str, Field(min_length=1, json_schema_extra={"format": "path"})]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Shards = Annotated[int, Field(ge=1, le=100_000)]
Options = tuple[str | int | float | bool, ...]


class Section(BaseModel):
    """A group of settings. Strings below its fields are their documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
