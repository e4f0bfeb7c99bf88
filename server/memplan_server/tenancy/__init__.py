"""Who may ask: tenants with tokens, and how much each may. Imports neither grpc nor torch."""

from memplan_server.tenancy.metered import MeteredProfiler
from memplan_server.tenancy.quotas import Quotas
from memplan_server.tenancy.tenants import Tenant, Tenants, TenantsError

__all__ = ["MeteredProfiler", "Quotas", "Tenant", "Tenants", "TenantsError"]
