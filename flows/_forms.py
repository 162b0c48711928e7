"""Type the fields of the forms in which Prefect asks for a flow's parameters, each with the title that it has there."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

LAST = 0  # of the attempts


def titled(title: str) -> FieldInfo:
    """Title a field of a form.

    Prefect gives each parameter a field of its own, titled as the parameter is called; what is extra stays.
    """
    extra: FieldInfo = Field(json_schema_extra={"title": title})
    return extra


NewUpdateId = Annotated[str, titled("New update id")]
UpdateId = Annotated[str, titled("Update id")]
# Runs that are older than the form have None for the last one.
Attempt = Annotated[int, BeforeValidator(lambda number: number or LAST), Field(ge=LAST), titled("Attempt")]
Description = Annotated[str, titled("Description")]
Info = Annotated[str, titled("Further information")]
SourceName = Annotated[str, titled("Source block")]
PublicName = Annotated[str, titled("Public Server block")]
TargetName = Annotated[str, titled("Target block (OMEGA)")]
AllowDirty = Annotated[bool, titled("Allow uncommitted changes")]
PolicyName = Annotated[str, titled("Verification policy block")]
Fresh = Annotated[bool, titled("Run every check again")]
Unanswered = Annotated[Literal["keep", "supersede"], titled("Earlier releases that still wait")]
Reason = Annotated[str, titled("Reason")]
By = Annotated[str, titled("Who you are")]
