"""Records of images that stay in their registry: their manifests are fetched, and nothing else."""

from __future__ import annotations

from datetime import datetime

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.image_facts import facts
from sregistry.catalog.record import Record, record
from sregistry.oci.json_fields import load_json
from sregistry.oci.platforms import Platform
from sregistry.oci.reference import Reference
from sregistry.registry.client import RegistryClient
from sregistry.registry.resolve import resolve
from sregistry.results.resolved import SIF
from sregistry.store.store import Store
from sregistry.system import logs


def record_remote(
    catalog: Catalog, client: RegistryClient, reference: Reference, platform: Platform, store: Store, *, now: datetime
) -> tuple[Record, bool]:
    """Record an image of a registry; return its record, and whether it is new. Raises as `resolve`; CatalogError."""
    resolved = resolve(client, reference, platform, store)
    for line in resolved.warnings:
        logs.logger().warning("%s: %s", resolved.uri, line)
    config = {} if resolved.kind == SIF else load_json(resolved.image_config.encode(), "config")
    return catalog.add(record(resolved, None, now=now, facts=facts(config, str(resolved.platform))))
