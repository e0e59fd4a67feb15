"""The packages that are installed in an image; an index of the links of instances."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "v0002"
down_revision: Final = "v0001"

_TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the column, and put the index in the place of the one that it covers."""
    op.add_column("os_resource", sa.Column("installed_packages", _TEXT, nullable=False, server_default=""))
    op.drop_index("instance_current_os", "instance")
    op.create_index("instance_links", "instance", ["tenant_id", "current_os_id", "desired_os_id", "os_type"])
