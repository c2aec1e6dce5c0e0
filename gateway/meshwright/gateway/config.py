"""What all parts of Envoy's configuration name alike: type URLs, and files in its folder. Pure."""

from typing import Any

Config = dict[str, Any]
DESCRIPTORS, CDS, ADMIN, ACCESS_LOG = "descriptors.binpb", "cds.pb", "admin.sock", "access.log"
LIMIT_HEADER = "x-ratelimit-bucket"
"""Says of a call that was one too many whose bucket is empty."""
JWKS = "jwks.json"
TYPE = "type.googleapis.com/"
FILTERS = TYPE + "envoy.extensions.filters.http."
