"""Where the tools are kept."""

import os

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What every table comes from."""


class Tool(Base):
    """A tool, and who lends it."""

    __tablename__ = "tools"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner: Mapped[str]


engine = create_engine(os.environ["DATABASE_URL"])
