"""A session of requests that leaves redirects to its user."""

from __future__ import annotations

import requests


class DirectSession(requests.Session):
    """Never looks where a redirect leads. requests itself would read a redirect's whole body first, however long."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: nothing is to be followed."""
